#include "run/stop_signals.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>

namespace lockstep::run {
namespace {

/// As StopSignals wants it, before any thread that computes: those of other tests of this program outlive them, and
/// would take a signal by ending the program.
[[maybe_unused]] const bool blocked = [] {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) sigaddset(&set, number);
  return pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}();

/// False if the wish does not arrive within a few seconds.
bool is_asked_soon(const StopSignals::Graceful& graceful) {
  for (int i = 0; i < 500 && !graceful.stop_asked(); ++i) usleep(10'000);
  return graceful.stop_asked();
}

/// Whether each signal, with another one right behind it, is one wish.
bool all_are_wishes() {
  const StopSignals signals;
  bool all = true;
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) {
    const StopSignals::Graceful graceful;
    all = all && !graceful.stop_asked();  // a wish belongs to the part of the program that it was meant for

    kill(getpid(), number);
    all = is_asked_soon(graceful) && all;
    kill(getpid(), SIGTERM);
    usleep(150'000);
  }
  return all;
}

// In a process of its own: threads that other tests have left behind, with no signal blocked, would take them.
TEST(StopSignals, EachOfThemIsAWishToStopAndSeveralAtOnceAreOne) {
  EXPECT_EXIT(std::_Exit(all_are_wishes() ? 0 : 1), ::testing::ExitedWithCode(0), "");
}

/// Whether SIGUSR1 is one wish to save, never one to stop, and nothing where nobody can save.
bool usr1_only_saves() {
  const StopSignals signals;
  kill(getpid(), SIGUSR1);
  usleep(300'000);
  StopSignals::Graceful graceful;
  const bool none_yet = !graceful.take_save();
  bool saved = false;
  kill(getpid(), SIGUSR1);
  for (int i = 0; i < 500 && !saved; ++i) {
    usleep(10'000);
    saved = graceful.take_save();
  }
  return none_yet && saved && !graceful.take_save() && !graceful.stop_asked();
}

TEST(StopSignals, Usr1IsAWishToSaveAndNeverOneToStop) {
  EXPECT_EXIT(std::_Exit(usr1_only_saves() ? 0 : 1), ::testing::ExitedWithCode(0), "");
}

TEST(StopSignals, EndTheProcessWhereNobodyCanSave) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        kill(getpid(), SIGTERM);
        sleep(5);
      },
      ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignals, ASecondWishThatComesLaterEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        const StopSignals::Graceful graceful;
        kill(getpid(), SIGTERM);
        usleep(3'500'000);
        kill(getpid(), SIGINT);
        sleep(5);
      },
      ::testing::ExitedWithCode(128 + SIGINT), "");
}

TEST(StopSignals, AHangUpThatIsIgnoredStaysIgnored) {
  std::signal(SIGHUP, SIG_IGN);
  {
    const StopSignals signals;
    const StopSignals::Graceful graceful;

    kill(getpid(), SIGHUP);
    usleep(300'000);

    EXPECT_FALSE(graceful.stop_asked());
  }
  std::signal(SIGHUP, SIG_DFL);
}

}  // namespace
}  // namespace lockstep::run
