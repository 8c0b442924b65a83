#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/view.hpp"

namespace lockstep::comm {

// What each rank's last collectives were, where the other ranks of its host can read it although it hangs: a rank that
// is stopped or stuck answers no message. For ranks that are threads the table lies in their memory, for processes in
// shared memory that has no name any more once all of them have mapped it.

enum class Call : std::uint8_t { none, all_reduce, reduce_scatter, all_gather, broadcast, all_to_all, barrier };
[[nodiscard]] std::string_view to_string(Call call) noexcept;

/// What must be equal on all ranks of one collective.
struct Signature {
  Call call = Call::none;
  DType dtype = DType::u8;
  std::uint8_t op = 0;         ///< a Reduce
  std::uint8_t unused = 0;     ///< keeps the bytes defined: signatures are compared and sent
  std::int32_t root = -1;      ///< of a broadcast
  std::uint64_t elements = 0;  ///< 0 for an all_to_all, where every rank sends its own number
  bool operator==(const Signature&) const = default;
};
/// "all_reduce of 1000 x f32"
[[nodiscard]] std::string describe(const Signature& signature);

/// Where a rank is in its life.
enum class Phase : std::int32_t {
  absent,
  starting,    ///< MPI_Init
  connecting,  ///< makes its communicators: the library's own collectives, which have no deadline
  running,
  ending,  ///< frees them, MPI_Finalize
  gone
};

/// One rank's entry. Written by one thread, read by anybody at any time: every field is whole by itself, and a reader
/// that comes while a line of the ring is overwritten sees a mixture of two in that line.
class FlightTrack {
 public:
  static constexpr std::size_t lines = 128;

  struct Line {
    std::atomic<std::uint64_t> number{0};  ///< of the collective, from 1; 0: never written
    std::atomic<std::uint64_t> what{0};    ///< call, dtype, op, root
    std::atomic<std::uint64_t> elements{0};
    std::atomic<std::int64_t> entered{0};  ///< nanoseconds of the steady clock, which the processes of a host share
    std::atomic<std::int64_t> left{0};     ///< 0: under way
  };

  void sit_down(int rank, int process, Phase phase);
  void enter(Phase phase) { phase_.store(phase, std::memory_order_release); }
  void at_step(std::int64_t step) { step_.store(step, std::memory_order_relaxed); }
  /// The number of the collective that begins.
  std::uint64_t begin(const Signature& signature);
  void begin_wait(std::uint64_t number);
  /// The collective is over, and with it the wait for it.
  void end(std::uint64_t number);

  [[nodiscard]] int rank() const { return rank_.load(std::memory_order_acquire); }  ///< -1: nobody sat down
  [[nodiscard]] int process() const { return process_.load(std::memory_order_acquire); }
  [[nodiscard]] Phase phase() const { return phase_.load(std::memory_order_acquire); }
  [[nodiscard]] std::int64_t step() const { return step_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t begun() const { return begun_.load(std::memory_order_acquire); }
  /// The number of the collective that the rank waits for; 0: for none.
  [[nodiscard]] std::uint64_t awaited() const { return awaited_.load(std::memory_order_acquire); }
  /// Empty if the ring has gone past it.
  [[nodiscard]] Signature signature(std::uint64_t number) const;
  /// One line of text for each collective in the ring, oldest first; times in seconds before `now`.
  [[nodiscard]] std::string text(std::int64_t now) const;

 private:
  std::atomic<std::int32_t> rank_{-1};
  std::atomic<std::int32_t> process_{0};
  std::atomic<Phase> phase_{Phase::absent};
  std::atomic<std::int64_t> step_{0};
  std::atomic<std::uint64_t> begun_{0};
  std::atomic<std::uint64_t> awaited_{0};
  std::array<Line, lines> ring_;
};

/// The tracks of the ranks of one host, or of one process.
class FlightTable {
 public:
  /// For ranks that are threads of this process; rank r has track r.
  explicit FlightTable(int ranks);
  /// For a process that a launcher started: with the other ranks of this host if the launcher says how many there are
  /// and a name that is this job's alone (Open MPI's mpirun does), else alone.
  [[nodiscard]] static std::unique_ptr<FlightTable> of_process(int rank);
  FlightTable(const FlightTable&) = delete;
  FlightTable& operator=(const FlightTable&) = delete;
  ~FlightTable();

  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] FlightTrack& track(int place) const;
  /// This process's track (of_process).
  [[nodiscard]] FlightTrack& own() const { return track(own_); }
  /// True for the first rank of the host that asks: it writes for all.
  [[nodiscard]] bool claim_dump();
  /// True for the first rank of the host that gives the job up: it says why. Whoever comes later would name ranks that
  /// have ended because of it.
  [[nodiscard]] bool claim_end();
  /// True unless one of the host has claimed a warning less than `apart` seconds ago: ranks that wait for one that is
  /// missing may wait in different collectives.
  [[nodiscard]] bool claim_warning(double apart);

  /// Those that have not begun collective `number`, and those whose process is stopped or gone, as text:
  /// "rank 2 (stopped; step 7, has left collective number 41)". Ranks that wait in an earlier collective are named only
  /// if nobody else is missing: they wait for the same rank. Empty: all of this host's ranks have come.
  [[nodiscard]] std::string missing_from(std::uint64_t number) const;
  /// The same where the library waits by itself (Phase::starting, connecting, ending): those that have not got there.
  [[nodiscard]] std::string missing_from(Phase phase) const;
  /// All tracks, for people.
  [[nodiscard]] std::string text() const;

 private:
  struct Head;
  FlightTable() = default;

  Head* head_ = nullptr;
  std::size_t bytes_ = 0;
  int size_ = 0;
  int own_ = 0;
  bool shared_ = false;
  std::string file_;
};

}  // namespace lockstep::comm
