// Ranks that stop, or never come: who is named, after how long, and that nothing is left.
#include <csignal>
#include <thread>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) { return Seconds(Clock::now() - then).count(); }

class Hangs : public ProgramTest {};

TEST_F(Hangs, AStoppedRankIsNamedWithItsCollectiveInTimeAndNothingIsLeft) {
  Program program(
      "mpirun -n 3 lockstep train job.yaml --set train_batch_size=9 --set run.steps=100000000 --set comm.timeout_s=3 "
      "--set comm.warn_s=1",
      options());
  ASSERT_TRUE(program.wait_for("step  "));
  const Clock::time_point stop = Clock::now();
  kill(program.ranks().at(2), SIGSTOP);

  ASSERT_TRUE(program.wait_for("Missing: rank 2 (stopped; at step "));
  const double warned = seconds_since(stop);
  ASSERT_TRUE(program.wait_for("no answer from rank 2"));
  const double told = seconds_since(stop);
  const Outcome outcome = program.finish();
  const double ended = seconds_since(stop);

  std::printf("warning after %.2f s, message after %.2f s, end after %.2f s\n", warned, told, ended);
  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_LT(told, 3 + 1) << outcome.all();
  EXPECT_TRUE(program.all_gone(Seconds(1)));
  EXPECT_EQ(count_of(outcome.err, "for more than 1 s"), 1) << outcome.err;
  EXPECT_NE(outcome.err.find("missing on this host: rank 2 (stopped; at step "), std::string::npos) << outcome.err;
  std::string rings;
  for (const auto& entry : std::filesystem::directory_iterator(path("runs/r")))
    if (entry.path().filename().string().starts_with("hang-")) rings = text_of(entry.path().string());
  for (const char* rank : {"rank 0: pid ", "rank 1: pid ", "rank 2: pid "})
    EXPECT_NE(rings.find(rank), std::string::npos) << rings;
  EXPECT_NE(rings.find("under way"), std::string::npos) << rings;
}

TEST_F(Hangs, ARankThatNeverReachesMpiInitIsNamed) {
  const std::string lockstep = "lockstep train job.yaml --set comm.start_timeout_s=3 --set comm.warn_s=1";
  const Clock::time_point start = Clock::now();
  Program program("mpirun -n 1 " + lockstep + " : -n 1 sleep 300", options());
  ASSERT_TRUE(program.wait_for("MPI_Init, which did not return within 3 s"));
  const double told = seconds_since(start);
  const Outcome outcome = program.finish();

  std::printf("message after %.2f s, end after %.2f s\n", told, seconds_since(start));
  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("Missing: local rank 1 of this host (has not started)"), std::string::npos) << outcome.err;
  EXPECT_TRUE(program.all_gone(Seconds(1)));
}

}  // namespace
}  // namespace lockstep::testing
