#include "comm/watchdog.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

namespace lockstep::comm {
namespace {

/// The watchdog's process ends: each case is a process of its own, which runs this program anew.
class WatchdogDeath : public testing::Test {
 protected:
  WatchdogDeath() { testing::GTEST_FLAG(death_test_style) = "threadsafe"; }

  /// Rank 0 is in a phase that has no deadline of its own, rank 1 never gets there.
  static void wait_in(Phase phase, Phase other) {
    const auto table = std::make_shared<FlightTable>(2);
    Watchdog watchdog(
        table, {.warn = Seconds(0.2), .abort = Seconds(60), .start = Seconds(0.5), .folder = {}, .host = "here"});
    table->track(0).sit_down(0, getpid(), phase);
    if (other != Phase::absent) table->track(1).sit_down(1, getpid(), other);
    std::this_thread::sleep_for(std::chrono::seconds(30));
  }
};

TEST_F(WatchdogDeath, NamesARankThatNeverStarts) {
  EXPECT_EXIT(wait_in(Phase::starting, Phase::absent), testing::ExitedWithCode(6),
              "rank 0 \\(here\\) waits in MPI_Init for more than 0.2 s. Missing: local rank 1 of this host \\(has not "
              "started\\)(.|\n)*MPI_Init, which did not return within 0.5 s \\(comm.start_timeout_s\\). Missing: local "
              "rank 1");
}

TEST_F(WatchdogDeath, NamesARankThatStaysInMpiInitWhileOthersMakeCommunicators) {
  EXPECT_EXIT(wait_in(Phase::connecting, Phase::starting), testing::ExitedWithCode(6),
              "the making of communicators after MPI_Init, which did not return within 0.5 s "
              "\\(comm.start_timeout_s\\). Missing: rank 1 \\(pid ");
}

TEST_F(WatchdogDeath, NamesARankThatNeverReachesMpiFinalize) {
  EXPECT_EXIT(wait_in(Phase::ending, Phase::running), testing::ExitedWithCode(6),
              "MPI_Finalize, which did not return within 0.5 s \\(comm.start_timeout_s\\). Missing: rank 1 \\(pid ");
}

TEST_F(WatchdogDeath, SaysSoWhereAllOfTheHostHaveCome) {
  EXPECT_EXIT(wait_in(Phase::ending, Phase::gone), testing::ExitedWithCode(6),
              "Missing: none of this host's ranks; another host's, or the network");
}

TEST(Watchdog, LeavesRanksAloneThatRun) {
  const auto table = std::make_shared<FlightTable>(2);
  Watchdog watchdog(table,
                    {.warn = Seconds(0.1), .abort = Seconds(0.2), .start = Seconds(0.2), .folder = {}, .host = "here"});
  for (const int rank : {0, 1}) table->track(rank).sit_down(rank, getpid(), rank == 0 ? Phase::running : Phase::gone);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_EQ(table->track(0).phase(), Phase::running);
}

}  // namespace
}  // namespace lockstep::comm
