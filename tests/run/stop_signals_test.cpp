#include "run/stop_signals.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

namespace lockstep::run {
namespace {

/// False if the wish does not arrive within a few seconds.
bool is_asked_soon(const StopSignals::Graceful& graceful) {
  for (int i = 0; i < 500 && !graceful.stop_asked(); ++i) usleep(10'000);
  return graceful.stop_asked();
}

TEST(StopSignals, EachOfThemIsAWishToStopAndSeveralAtOnceAreOne) {
  const StopSignals signals;
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) {
    const StopSignals::Graceful graceful;
    ASSERT_FALSE(graceful.stop_asked()) << "a wish belongs to the part of the program that it was meant for";

    kill(getpid(), number);
    const bool asked = is_asked_soon(graceful);
    kill(getpid(), SIGTERM);
    usleep(150'000);

    EXPECT_TRUE(asked) << "signal " << number;
  }
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
