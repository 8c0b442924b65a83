#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/deadline.hpp"
#include "comm/nccl_api.hpp"
#include "core/failure.hpp"

namespace lockstep::comm {

/// Looks after a rank's NCCL communicator from a thread of its own, which never calls the device: that could block
/// behind the very collective that hangs. It sees the state of collectives in pinned memory, where the device writes.
///
/// A collective that has been ready for longer than the timeout, or an error that NCCL reports, becomes the failure:
/// NCCL is stopped by ncclCommAbort, on a third thread since that can block too, and throw_if_failed() throws. If NCCL
/// has not stopped `grace` later, or nobody has called throw_if_failed() by then, the rank's own thread is stuck
/// somewhere: the process says what happened and ends with the failure's exit code.
///
/// The rank's thread uses it, but check() may be called by any.
class NcclWatchdog {
 public:
  struct Options {
    Seconds timeout{600};
    Seconds grace{10};
    std::string name;  ///< of the communicator, for messages
    int rank = 0;
  };
  /// Words in pinned memory that the device sets to zero.
  struct Marks {
    std::uint32_t* ready = nullptr;     ///< when this rank's data are ready for a collective
    std::uint32_t* finished = nullptr;  ///< when it is complete
  };

  NcclWatchdog(const NcclApi& api, Options options);
  /// Returns at once. What still stops NCCL on a thread of its own goes on doing so.
  ~NcclWatchdog();
  NcclWatchdog(const NcclWatchdog&) = delete;
  NcclWatchdog& operator=(const NcclWatchdog&) = delete;

  /// From now on `comm` is looked after; it is this object's to abort.
  void watch(NcclComm comm);
  /// `what` is about to be started: "all_reduce (sum) of 1000 x fp32, collective number 7". Collectives end in order.
  void began(std::string what, Marks marks);
  /// Forgets the collectives that have ended, and returns their marks for use again.
  [[nodiscard]] std::deque<Marks> take_finished();
  /// Whether all that have begun have ended.
  [[nodiscard]] bool idle();

  /// Calls function(comm) and returns its result; `success` alone does not mean that NCCL is through with it. Throws if
  /// there is a failure.
  template <class Function>
  NcclResult call(const Function& function) {
    throw_if_failed();
    const std::lock_guard lock(state_->calls);
    return state_->gone ? NcclResult::invalid_usage : function(state_->comm);
  }
  /// How the communicator is.
  [[nodiscard]] NcclResult async_state();

  /// Asks NCCL and throws what has gone wrong, also with an earlier collective. Never blocks, but for the time that
  /// NCCL takes to stop.
  void check();
  void throw_if_failed();
  /// Somebody has found a failure: NCCL is stopped, and it is thrown.
  [[noreturn]] void give_up(Failure failure);
  /// The same for a failure that the caller throws.
  void stop_for(Failure failure) noexcept;
  /// NCCL's own word for what went wrong, as a failure of `what`.
  [[nodiscard]] Failure failure_of_result(NcclResult result, std::string_view what) const;

  /// For destructors: has NCCL let go of everything? `finish` runs on a thread of its own and is waited for as long
  /// as `grace`; null: abort. Nothing is looked after any more.
  [[nodiscard]] bool let_go(NcclResult (*finish)(NcclComm)) noexcept;

 private:
  struct Entry {
    std::string what;
    Marks marks;
    std::uint64_t number = 0;
  };
  enum class Stop { no, wanted, running, done };
  /// Shared with the threads, which may outlive this object.
  struct State {
    explicit State(const NcclApi& table) : api(table) {}
    const NcclApi& api;
    std::mutex calls;  ///< one thread at a time in NCCL
    NcclComm comm;     ///< under calls
    bool gone = true;  ///< under calls: there is nothing to call
    std::mutex mutex;  ///< of the rest
    std::condition_variable changed;
    std::deque<Entry> entries;
    std::uint64_t last_number = 0;
    std::optional<Failure> failure;
    bool noticed = false;  ///< the rank's thread knows of the failure
    Stop stop = Stop::no;
    NcclResult (*how)(NcclComm) = nullptr;
    bool ended = false;
  };

  static void stop_nccl(const std::shared_ptr<State>& state);
  static void start_stopping(const std::shared_ptr<State>& state);
  static std::optional<NcclResult> ask(State& state, bool patient);
  void wait_until_stopped(std::unique_lock<std::mutex>& lock);
  void look(std::unique_lock<std::mutex>& lock);
  void run();
  [[nodiscard]] std::string oldest_locked() const;
  [[noreturn]] void end_process(const Failure& failure, bool stopped) const;

  Options options_;
  std::shared_ptr<State> state_;
  // The watching thread's:
  std::uint64_t watched_ = 0;         ///< the number of the entry that is waited for
  std::optional<Deadline> deadline_;  ///< of that one
  std::optional<Deadline> last_;      ///< of what follows a failure
  std::jthread thread_;               // last: it uses the others
};

}  // namespace lockstep::comm
