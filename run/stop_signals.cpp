#include "run/stop_signals.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>

namespace lockstep::run {
namespace {

using Clock = std::chrono::steady_clock;

/// Signals of so long belong to one wish: mpirun passes on what it gets, so a rank that a terminal signals too, or a
/// batch system that signals a whole group, meets it twice within milliseconds. Whoever presses twice waits longer.
constexpr std::chrono::seconds one_wish{3};

std::atomic<int> graceful{0};
std::atomic<bool> asked{false};
std::atomic<bool> save_asked{false};

/// nohup: whoever starts the program so that it outlives a terminal does not want it to stop with that. A blocked
/// signal would be taken although it is ignored.
bool hang_up_is_ignored() {
  struct sigaction action = {};
  return sigaction(SIGHUP, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

sigset_t taken_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (!hang_up_is_ignored()) sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  return set;
}

void wait_for_signals(const std::stop_token& stop) {
  const sigset_t set = taken_set();
  Clock::time_point first;
  while (!stop.stop_requested()) {
    const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
    const int signal = sigtimedwait(&set, nullptr, &moment);
    if (signal <= 0) continue;
    if (signal == SIGUSR1) {
      if (graceful.load() > 0) save_asked.store(true);
      continue;
    }
    if (graceful.load() == 0) std::_Exit(128 + signal);
    if (!asked.exchange(true))
      first = Clock::now();
    else if (Clock::now() - first > one_wish)
      std::_Exit(128 + signal);
  }
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = taken_set();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  waiter_ = std::jthread(wait_for_signals);
}

StopSignals::~StopSignals() {
  waiter_.request_stop();
  waiter_.join();
  const sigset_t set = taken_set();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

StopSignals::Graceful::Graceful() {
  if (graceful.fetch_add(1) > 0) return;
  asked.store(false);
  save_asked.store(false);
}

StopSignals::Graceful::~Graceful() { graceful.fetch_sub(1); }

bool StopSignals::Graceful::stop_asked() const { return asked.load(); }

bool StopSignals::Graceful::take_save() { return save_asked.exchange(false); }

}  // namespace lockstep::run
