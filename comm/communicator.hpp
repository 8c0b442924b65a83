#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "comm/flight_recorder.hpp"
#include "core/device.hpp"
#include "core/probe.hpp"
#include "core/view.hpp"

namespace lockstep::comm {

enum class Reduce : std::uint8_t { sum, max, min };

/// What a backend can do; the engine asks once and chooses its way of working.
struct Capabilities {
  bool host_memory = false;  ///< of every communicator: ranks agree over it, whatever device they compute on
  bool device_memory = false;
  bool shared_address_space = false;  ///< a rank can read another rank's arena through FlatArena::peer
  bool ordered_sum = false;           ///< sums are taken as the tree T over ranks (core/sum_tree.hpp)
  bool graph_capturable = false;
  DType wire = DType::f32;      ///< as what fp32 sums travel
  bool needs_progress = false;  ///< nothing moves unless somebody calls progress()
};

/// A collective under way. Worth nothing after wait().
struct [[nodiscard]] Pending {
  std::uint64_t id = 0;  ///< 0: nothing to wait for
};

/// What a rank has sent to others, since its communicator was made.
struct Traffic {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  Traffic operator-(const Traffic& before) const { return {messages - before.messages, bytes - before.bytes}; }
  Traffic operator+(const Traffic& more) const { return {messages + more.messages, bytes + more.bytes}; }
};

/// Memory for flat buffers, made by the communicator so that ranks of one host can reach each other's.
class FlatArena {
 public:
  virtual ~FlatArena() = default;
  [[nodiscard]] virtual std::byte* data() const noexcept = 0;
  [[nodiscard]] virtual std::size_t bytes() const noexcept = 0;
  /// The same arena of another rank, or null where the address space is not shared.
  [[nodiscard]] virtual std::byte* peer(int rank) const noexcept = 0;
};

using Seconds = std::chrono::duration<double>;

/// A run of elements of a buffer.
struct Part {
  std::size_t begin = 0;
  std::size_t end = 0;
  [[nodiscard]] std::size_t size() const { return end - begin; }
  bool operator==(const Part&) const = default;
};
/// By rank.
using Parts = std::vector<Part>;

/// A fixed group of ranks that exchange buffers.
///
/// Every rank issues the same collectives in the same order. `start_*` returns at once; the buffer belongs to the
/// communicator until wait() returns (host memory) or until the stream given to wait() gets there (device memory).
/// `after` is the stream whose work so far produces the data. Public functions check arguments once, short-cut
/// single ranks and empty data, then call the private virtuals. Pieces are at most 2^30 elements; larger buffers are
/// cut inside. One object a rank, used by one thread.
///
/// Errors: ErrorKind::hang when a wait passes its deadline (the message names the collective, its size and the
/// ranks that have not arrived where that is known); ErrorKind::internal for arguments.
class Communicator {
 public:
  /// The longest piece that goes over in one go, in elements.
  static constexpr std::size_t default_max_piece = std::size_t{1} << 30;

  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;
  /// Of the messages that this backend sends itself; what ranks read in shared memory, and what a library sends for its
  /// own collectives, is not in it.
  [[nodiscard]] virtual Traffic traffic() const { return {}; }
  [[nodiscard]] virtual std::string name() const = 0;  ///< "local", "mpi (Open MPI 4.1.4)"
  [[nodiscard]] virtual Capabilities capabilities() const noexcept = 0;

  /// data <- reduction over ranks of data, in place, on every rank. f32, f64, i32, i64; and bf16, f16: each
  /// contribution is taken as it is, summed in fp32 as the tree T over ranks, and the result rounded once (unless the
  /// backend was asked for its library's order).
  Pending start_all_reduce(Buffer data, Reduce op, StreamRef after = {});
  /// offsets has size()+1 ascending entries; rank r's part of `data` is [offsets[r], offsets[r+1]), parts may be
  /// empty and uneven. Afterwards a rank's own part holds the reduction; the rest of `data` is undefined.
  Pending start_reduce_scatter(Buffer data, std::span<const std::size_t> offsets, Reduce op, StreamRef after = {});
  /// Every rank has its own part of `data`; afterwards all have all of it.
  Pending start_all_gather(Buffer data, std::span<const std::size_t> offsets, StreamRef after = {});
  Pending start_broadcast(Buffer data, int root, StreamRef after = {});
  /// Part r of `send` goes to rank r and arrives as part rank() of its `receive`; both cut by their offsets. The two
  /// buffers do not overlap.
  Pending start_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                           std::span<const std::size_t> receive_offsets, StreamRef after = {});

  /// Lets collectives under way advance; cheap, called between operations of the backward pass.
  virtual void progress() = 0;
  /// Host memory: blocks until done. Device memory: makes `stream` wait. Throws ErrorKind::hang after the deadline
  /// (the default one is an option of the backend).
  void wait(Pending pending, StreamRef stream = {});
  /// Is told of every wait from now on, as communication; null: nobody. It must live until then.
  void set_probe(Probe* probe) { probe_ = probe; }
  /// True once the collective is complete; never blocks. wait() must be called all the same.
  [[nodiscard]] bool test(Pending pending);

  /// Throws if a peer or the library behind this communicator is known to have failed; never waits for either. For who
  /// waits for something else that collectives may hold up: any thread may call it, also while another one uses this.
  /// It is to be called while one waits, and once after: collectives that are given up let the device go on, with
  /// whatever is in their buffers.
  virtual void check() {}

  void barrier();
  /// Ends the whole job: every rank's waits fail, with `why` where it can reach them. Called once, by whoever caught
  /// the error and has told of it: nothing is printed here.
  virtual void abort(std::string_view why, int exit_code) noexcept = 0;

  /// From here on every collective of this object leaves a line in `track`, which must outlive it. Of communicators
  /// that work through another one only the outermost is recorded.
  void record_in(FlightTrack* track) noexcept { track_ = track; }
  /// For messages and the recorder: the step that what follows belongs to.
  void at_step(std::int64_t step) noexcept {
    if (track_ != nullptr) track_->at_step(step);
  }
  /// For debugging: before each collective the ranks compare what they are about to do, and a difference is
  /// ErrorKind::desync on every rank, with both, in place of a hang or of numbers without sense. Each collective then
  /// waits for one of 16 bytes a rank. To be set on all ranks alike.
  void check_signatures(bool check) noexcept { check_signatures_ = check; }

  /// Memory for flat buffers of `device`: shared with the ranks of this host where the backend can. Collective: all
  /// ranks make it together, each as large as it likes.
  [[nodiscard]] virtual std::unique_ptr<FlatArena> make_arena(DeviceApi& device, std::size_t bytes);
  /// The same for buffers that the ranks exchange once or never. Shared between processes only where that is free:
  /// private memory has huge pages on more systems.
  [[nodiscard]] virtual std::unique_ptr<FlatArena> make_own_arena(DeviceApi& device, std::size_t bytes) {
    return make_arena(device, bytes);
  }

  // Blocking forms for small host values.
  void all_reduce(Buffer data, Reduce op) { wait(start_all_reduce(data, op)); }
  void broadcast(Buffer data, int root) { wait(start_broadcast(data, root)); }
  void all_gather(Buffer data, std::span<const std::size_t> offsets) { wait(start_all_gather(data, offsets)); }
  /// A small host struct; has its own name because a View is trivially copyable too.
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void broadcast_value(T& value, int root) { broadcast({&value, sizeof(T), DType::u8, Memory::host}, root); }
  /// values.size() == size(); every rank fills its own entry first.
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void all_gather_values(std::span<T> values) { gather_bytes(values.data(), sizeof(T)); }
  /// Any text; the other ranks' argument is replaced by the root's.
  void broadcast_text(std::string& text, int root);

 protected:
  explicit Communicator(std::size_t max_piece = default_max_piece);

 private:
  template <class Start>
  Pending start_in_pieces(std::size_t count, Start start);
  template <class Start>
  Pending start_in_parts(std::size_t count, std::span<const std::size_t> offsets, Start start);
  Pending join(std::vector<Pending> pieces);
  template <class Start>
  Pending recorded(const Signature& signature, Start start);
  void compare_signatures(const Signature& own);
  void wait_for_pieces(Pending pending, StreamRef stream);
  [[nodiscard]] bool nothing_to_do(const Buffer& data) const;
  void gather_bytes(void* values, std::size_t bytes_each);
  virtual Pending do_all_reduce(Buffer data, Reduce op, StreamRef after) = 0;
  virtual Pending do_reduce_scatter(Buffer data, const Parts& parts, Reduce op, StreamRef after) = 0;
  virtual Pending do_all_gather(Buffer data, const Parts& parts, StreamRef after) = 0;
  virtual Pending do_broadcast(Buffer data, int root, StreamRef after) = 0;
  virtual Pending do_all_to_all(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                                std::span<const std::size_t> receive_offsets, StreamRef after) = 0;
  virtual void do_barrier() = 0;
  virtual void do_wait(Pending pending, StreamRef stream) = 0;
  virtual bool do_test(Pending pending) = 0;

  /// A collective of the recorder that has not been waited for.
  struct Open {
    std::uint64_t pending;
    std::uint64_t number;
  };

  FlightTrack* track_ = nullptr;
  bool check_signatures_ = false;
  std::vector<Open> open_;
  std::uint64_t compared_ = 0;
  std::size_t max_piece_;
  std::uint64_t joined_count_ = 0;
  std::map<std::uint64_t, std::vector<Pending>> joined_;  ///< pieces of the collectives that were cut
  Probe* probe_ = nullptr;
};

/// A group of one: every collective is the identity (all_to_all copies). Works without MPI. For collectives on device
/// memory give their device, which must outlive the communicator; wait() then orders the streams as it always does. A
/// device whose memory is the host's changes nothing.
[[nodiscard]] std::unique_ptr<Communicator> make_single(DeviceApi* device = nullptr);

}  // namespace lockstep::comm
