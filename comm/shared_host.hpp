#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/shared_memory.hpp"

// Collectives of the ranks of one host in memory that all of them have mapped; comm/mpi.hpp is the public side.
//
// An operation is posted by every rank: where its buffer lies in which arena. Once all have, it is a list of work
// items, each of which has an owner; a rank takes its own first and then what is left of the others', so that who comes
// by early does not wait for who comes late. Who does an item does not change its result.
namespace lockstep::comm {

/// What an operation does with the pieces of its buffer.
enum class SharedWork : std::uint8_t {
  reduce_to_all,    ///< every rank's piece <- the sum of all ranks'
  reduce_to_owner,  ///< the owner's piece <- the sum of all ranks'; the others' stay
  copy_from_owner,  ///< every rank's piece <- the owner's
  copy_from_root,   ///< every rank's piece <- the root's
  exchange,         ///< the owner's part s of `receive` <- rank s's part `owner` of `data`
};

/// A collective of the ranks of a host, as one of them sees it.
struct SharedOperation {
  struct Piece {
    std::size_t begin = 0;  ///< exchange: the sender
    std::size_t count = 0;
  };
  std::uint64_t number = 0;  ///< equal on all ranks
  SharedWork work = SharedWork::reduce_to_all;
  Reduce op = Reduce::sum;
  int root = 0;      ///< by place on the host
  Buffer data = {};  ///< in an arena of the group
  Buffer receive = {};
  std::vector<std::size_t> send_offsets = {}, receive_offsets = {};  ///< of exchange
  std::vector<Piece> pieces = {};                                    ///< by owner
  std::vector<std::size_t> first = {};                               ///< of each owner's pieces; one more than owners

  bool posted = false;
  bool ready = false;
  std::vector<void*> buffers = {}, receives = {};  ///< of every rank, once ready
};

/// The ranks of one host within one communicator. One object a rank, used by one thread; the ranks meet in memory.
class SharedHost {
 public:
  /// `control`: a block of control_bytes(size) of each rank, mapped by all.
  SharedHost(int place, int size, std::unique_ptr<SharedMemory> control);
  SharedHost(const SharedHost&) = delete;
  SharedHost& operator=(const SharedHost&) = delete;
  ~SharedHost() = default;
  [[nodiscard]] static std::size_t control_bytes(int size);

  [[nodiscard]] int place() const { return place_; }
  [[nodiscard]] int size() const { return size_; }

  /// The next arena is known from now on, until forget(). Collective: equal numbers on all ranks.
  std::uint64_t remember(std::shared_ptr<SharedMemory> memory);
  void forget(std::uint64_t arena);
  /// Whether a buffer lies in an arena, so that the other ranks can reach it.
  [[nodiscard]] bool holds(const Buffer& buffer) const { return find(buffer).has_value(); }

  /// An operation of the next number. `owned`: what each rank of the host has of the buffer.
  [[nodiscard]] SharedOperation make(SharedWork work, Buffer data, const std::vector<Parts>& owned, Reduce op,
                                     int root = 0);
  [[nodiscard]] SharedOperation make_exchange(Buffer send, std::span<const std::size_t> send_offsets, Buffer receive,
                                              std::span<const std::size_t> receive_offsets);
  /// `count` elements shared out evenly, in whole cache lines.
  [[nodiscard]] std::vector<Parts> even_shares(std::size_t count) const;

  /// Does what can be done of it now; true when it is complete for this rank. Never blocks. ErrorKind::desync where the
  /// ranks do not ask for the same.
  [[nodiscard]] bool advance(SharedOperation& operation);
  /// Places of the ranks that have not posted it.
  [[nodiscard]] std::vector<int> missing(const SharedOperation& operation) const;

  /// Changes whenever a rank posts or an operation is complete: to be read before one looks, for sleep().
  [[nodiscard]] std::uint32_t events() const;
  /// Returns at the first event after `seen`, or after `most`.
  void sleep(std::uint32_t seen, Seconds most);

 private:
  struct Slot;
  struct Header;
  struct Place {
    std::uint64_t arena;
    std::uint64_t offset;
  };
  [[nodiscard]] std::optional<Place> find(const Buffer& buffer) const;
  [[nodiscard]] Header& header(int place) const;
  [[nodiscard]] Slot& slot(int place, std::uint64_t number) const;
  [[nodiscard]] std::uint64_t* offsets_of(int place, std::uint64_t number) const;
  [[nodiscard]] std::byte* address(int place, std::uint64_t arena, std::uint64_t offset) const;
  [[nodiscard]] std::uint64_t take_number();
  [[nodiscard]] bool post(SharedOperation& operation);
  [[nodiscard]] bool all_posted(SharedOperation& operation) const;
  void work_on(SharedOperation& operation);
  void run(const SharedOperation& operation, int owner, const SharedOperation::Piece& piece) const;
  void exchange(const SharedOperation& operation, int to, int from) const;
  void complete(const SharedOperation& operation);
  void signal();

  int place_;
  int size_;
  std::unique_ptr<SharedMemory> control_;
  std::map<std::uint64_t, std::shared_ptr<SharedMemory>> arenas_;
  std::map<const std::byte*, std::uint64_t> by_address_;  ///< this rank's blocks
  std::uint64_t last_arena_ = 0;
  std::uint64_t last_number_ = 0;
  std::set<std::uint64_t> open_;  ///< operations that this rank has not seen complete
};

}  // namespace lockstep::comm
