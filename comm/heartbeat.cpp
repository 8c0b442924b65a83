#include "comm/heartbeat.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/failure.hpp"
#include "core/host.hpp"

namespace lockstep::comm {
namespace {

/// What a rank says of itself each time.
struct Sign {
  enum class State : std::int32_t { working, done, failed };
  State state = State::working;
  ErrorKind kind = ErrorKind::internal;
};

/// A task on a thread of its own, and how far it is.
class Worker {
 public:
  explicit Worker(const std::function<void()>& work)
      : thread_([this, &work] {
          try {
            if (work) work();
          } catch (...) {
            error_ = std::current_exception();
          }
          const std::lock_guard lock(mutex_);
          over_ = true;
          changed_.notify_one();
        }) {}

  /// Returns as soon as the work is over, but after `period` at the latest; says whether it is.
  bool wait(Seconds period) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, period, [this] { return over_; });
  }
  /// Once over: what the work threw, or null.
  [[nodiscard]] std::exception_ptr error() const { return error_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::exception_ptr error_;  // written before over_
  std::jthread thread_;       // last: it uses the others
};

}  // namespace

void run_with_heartbeat(Communicator& comm, std::string_view what, const std::function<void()>& work, Seconds period) {
  if (comm.size() == 1) {
    if (work) work();
    return;
  }
  Worker worker(work);
  const auto self = static_cast<std::size_t>(comm.rank());
  std::vector<Sign> signs(static_cast<std::size_t>(comm.size()));
  Failure own;
  for (bool all_over = false; !all_over;) {
    if (worker.wait(period)) {
      signs[self].state = worker.error() ? Sign::State::failed : Sign::State::done;
      if (worker.error()) own = failure_of(worker.error());
      // Ours are complete sentences; a foreign exception's text says little without the work.
      if (worker.error() && own.kind == ErrorKind::internal) own.text = fmt::format("{}: {}", what, own.text);
      signs[self].kind = own.kind;
    }
    comm.all_gather_values(std::span(signs));
    all_over = std::ranges::none_of(signs, [](const Sign& sign) { return sign.state == Sign::State::working; });
  }

  const auto failed = std::ranges::find_if(signs, [](const Sign& sign) { return sign.state == Sign::State::failed; });
  if (failed == signs.end()) return;
  const int speaker = static_cast<int>(failed - signs.begin());
  const bool all_failed =
      std::ranges::all_of(signs, [](const Sign& sign) { return sign.state == Sign::State::failed; });
  std::string text = own.text;
  // Rank 0 works for all; what another rank meets and rank 0 does not is a matter of that rank's host.
  if (speaker == comm.rank() && speaker != 0 && !all_failed)
    text = fmt::format("rank {} ({}): {}", speaker, host_name(), own.text);
  comm.broadcast_text(text, speaker);
  throw Error(failed->kind, text);
}

}  // namespace lockstep::comm
