#include "comm/nccl_watchdog.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "core/error.hpp"

namespace lockstep::comm {
namespace {

// Looks so often; a short timeout (of a test) is looked at several times in its course.
constexpr std::chrono::milliseconds look_interval{100};

// A call of NCCL's that holds the lock for longer is stuck in it, and may only be ended by an abort from outside.
constexpr std::chrono::seconds patience_with_calls{1};

bool is_zero(const std::uint32_t* mark) {
  return std::atomic_ref(*const_cast<std::uint32_t*>(mark)).load(std::memory_order_acquire) == 0;
}

}  // namespace

NcclWatchdog::NcclWatchdog(const NcclApi& api, Options options)
    : options_(std::move(options)), state_(std::make_shared<State>(api)), thread_([this] { run(); }) {}

NcclWatchdog::~NcclWatchdog() {
  const std::lock_guard lock(state_->mutex);
  state_->ended = true;
  state_->changed.notify_all();
}

void NcclWatchdog::watch(NcclComm comm) {
  const std::lock_guard lock(state_->calls);
  state_->comm = comm;
  state_->gone = false;
}

void NcclWatchdog::began(std::string what, Marks marks) {
  const std::lock_guard lock(state_->mutex);
  state_->entries.push_back({std::move(what), marks, ++state_->last_number});
}

std::deque<NcclWatchdog::Marks> NcclWatchdog::take_finished() {
  std::deque<Marks> taken;
  const std::lock_guard lock(state_->mutex);
  while (!state_->entries.empty() && is_zero(state_->entries.front().marks.finished)) {
    taken.push_back(state_->entries.front().marks);
    state_->entries.pop_front();
  }
  return taken;
}

bool NcclWatchdog::idle() {
  const std::lock_guard lock(state_->mutex);
  return state_->entries.empty() || is_zero(state_->entries.back().marks.finished);
}

std::optional<NcclResult> NcclWatchdog::ask(State& state, bool patient) {
  std::unique_lock lock(state.calls, std::defer_lock);
  if (patient ? (lock.lock(), false) : !lock.try_lock()) return std::nullopt;
  if (state.gone) return std::nullopt;
  NcclResult now = NcclResult::success;
  const NcclResult asked = state.api.async_error(state.comm, &now);
  return asked == NcclResult::success ? now : asked;
}

NcclResult NcclWatchdog::async_state() {
  throw_if_failed();
  return ask(*state_, true).value_or(NcclResult::invalid_usage);
}

void NcclWatchdog::check() {
  throw_if_failed();
  const std::optional<NcclResult> now = ask(*state_, false);
  if (!now || *now == NcclResult::success || *now == NcclResult::in_progress) return;
  std::string what;
  {
    const std::lock_guard lock(state_->mutex);
    what = oldest_locked();
  }
  give_up(failure_of_result(*now, what));
}

void NcclWatchdog::throw_if_failed() {
  std::unique_lock lock(state_->mutex);
  if (!state_->failure) return;
  wait_until_stopped(lock);
  throw Error(state_->failure->kind, state_->failure->text);
}

/// Who unwinds frees what NCCL may still be using. If it does not stop, the watching thread ends the process.
void NcclWatchdog::wait_until_stopped(std::unique_lock<std::mutex>& lock) {
  state_->noticed = true;
  state_->changed.wait(lock, [&] { return state_->stop == Stop::done; });
}

void NcclWatchdog::stop_for(Failure failure) noexcept {
  std::unique_lock lock(state_->mutex);
  if (!state_->failure) state_->failure = std::move(failure);
  start_stopping(state_);
  wait_until_stopped(lock);
}

void NcclWatchdog::give_up(Failure failure) {
  stop_for(std::move(failure));
  const std::lock_guard lock(state_->mutex);
  throw Error(state_->failure->kind, state_->failure->text);
}

Failure NcclWatchdog::failure_of_result(NcclResult result, std::string_view what) const {
  const char* more = state_->api.last_error();
  const std::string said = fmt::format("{}{}{}", state_->api.result_text(result),
                                       more != nullptr && *more != '\0' ? ": " : "", more != nullptr ? more : "");
  const bool peer = result == NcclResult::remote_error || result == NcclResult::system_error;
  if (peer)
    return {ErrorKind::hang, fmt::format("{} {}: NCCL lost another rank or the network ({}); look at what the other "
                                         "ranks last logged, NCCL_DEBUG=INFO says more",
                                         options_.name, what, said)};
  return {result == NcclResult::unhandled_cuda_error ? ErrorKind::environment : ErrorKind::internal,
          fmt::format("{} {}: NCCL failed ({}); NCCL_DEBUG=INFO says more", options_.name, what, said)};
}

/// Under the mutex.
void NcclWatchdog::start_stopping(const std::shared_ptr<State>& state) {
  if (state->stop != Stop::no) return;
  state->stop = Stop::running;
  std::thread([state] { stop_nccl(state); }).detach();
}

void NcclWatchdog::stop_nccl(const std::shared_ptr<State>& state) {
  // A thread inside NCCL is given a moment; one that is stuck there is what an abort is for.
  std::unique_lock calls(state->calls, std::try_to_lock);
  for (Deadline patience(patience_with_calls); !calls && !patience.passed();) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    (void)calls.try_lock();
  }
  const bool there = !state->gone;
  state->gone = true;
  const NcclComm comm = state->comm;
  if (calls) calls.unlock();
  NcclResult (*how)(NcclComm) = state->how != nullptr ? state->how : state->api.abort;
  if (there) (void)how(comm);
  const std::lock_guard lock(state->mutex);
  state->stop = Stop::done;
  state->changed.notify_all();
}

bool NcclWatchdog::let_go(NcclResult (*finish)(NcclComm)) noexcept {
  std::unique_lock lock(state_->mutex);
  state_->ended = true;
  if (state_->stop == Stop::no) {
    state_->how = finish;
    start_stopping(state_);
  }
  return state_->changed.wait_for(lock, options_.grace, [&] { return state_->stop == Stop::done; });
}

std::string NcclWatchdog::oldest_locked() const {
  for (const Entry& entry : state_->entries)
    if (!is_zero(entry.marks.finished)) return entry.what;
  return "with nothing under way";
}

void NcclWatchdog::look(std::unique_lock<std::mutex>& lock) {
  const Entry* oldest = nullptr;
  for (const Entry& entry : state_->entries)
    if (!is_zero(entry.marks.finished)) {
      oldest = &entry;
      break;
    }
  // Until this rank's own data are ready nobody else is to blame; the deadline is that of whoever waits for them.
  if (oldest == nullptr || !is_zero(oldest->marks.ready)) {
    watched_ = 0;
  } else if (watched_ != oldest->number) {
    watched_ = oldest->number;
    deadline_.emplace(options_.timeout);
  } else if (deadline_->passed()) {
    state_->failure = {ErrorKind::hang,
                       fmt::format("{} {}: not complete {:g} s after this rank was ready for it, so another one did "
                                   "not take part; look at what the other ranks last logged, or raise comm.timeout_s "
                                   "if they are only slow",
                                   options_.name, oldest->what, options_.timeout.count())};
  }
  if (!state_->failure) {
    lock.unlock();
    const std::optional<NcclResult> now = ask(*state_, false);
    lock.lock();
    if (now && *now != NcclResult::success && *now != NcclResult::in_progress && !state_->failure)
      state_->failure = failure_of_result(*now, oldest_locked());
  }
  if (state_->failure) start_stopping(state_);
}

void NcclWatchdog::run() {
  const auto interval = std::min<std::chrono::duration<double>>(look_interval, options_.timeout / 8);
  std::unique_lock lock(state_->mutex);
  for (;;) {
    state_->changed.wait_for(lock, interval, [&] { return state_->ended; });
    if (state_->ended) return;
    if (!state_->failure) {
      look(lock);
    } else if (state_->stop != Stop::done || !state_->noticed) {
      if (!last_) last_.emplace(options_.grace);
      if (last_->passed()) end_process(*state_->failure, state_->stop == Stop::done);
    }
  }
}

void NcclWatchdog::end_process(const Failure& failure, bool stopped) const {
  const std::string text = fmt::format(
      "lockstep: rank {}: {} ({} within {:g} s: this process ends now)\n", options_.rank, failure.text,
      stopped ? "the rank's own thread did not come back" : "NCCL could not be stopped", options_.grace.count());
  // Locks may be held by whoever is stuck: nothing but these two calls.
  (void)!write(STDERR_FILENO, text.data(), text.size());
  _exit(exit_code(failure.kind));
}

}  // namespace lockstep::comm
