// Ranks that stop, or never come: who is named, after how long, and that nothing is left.
#include <csignal>
#include <thread>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) { return Seconds(Clock::now() - then).count(); }

/// Whether SIGSTOP has stopped a process.
bool is_stopped(pid_t process) {
  std::string stat = text_of("/proc/" + std::to_string(process) + "/stat");
  stat.erase(0, stat.rfind(')') + 1);
  return stat.starts_with(" T");
}

class Hangs : public ProgramTest {
 protected:
  static constexpr const char* train =
      "lockstep train job.yaml --set train_batch_size=9 --set comm.start_timeout_s=3 --set comm.warn_s=1 ";

  /// Rank 2 of 3 stops at a place of stopping_mpi; the others wait in `waits_in`, which the library does by itself.
  void expect_named(const std::string& place, const std::string& waits_in) const {
    const std::string stopping = "env LOCKSTEP_TEST_STOP=" + place + " LD_PRELOAD=" LOCKSTEP_STOPPING_MPI " ";
    Program program("mpirun -n 2 " + std::string(train) + ": -n 1 " + stopping + train, options());
    bool stopped = false;
    for (int look = 0; look < 3000 && !stopped; ++look) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const auto ranks = program.ranks();
      stopped = ranks.contains(2) && is_stopped(ranks.at(2));
    }
    ASSERT_TRUE(stopped) << place << program.output();
    const Clock::time_point stop = Clock::now();

    const bool said = program.wait_for(waits_in + ", which did not return within 3 s");
    const double told = seconds_since(stop);
    const Outcome outcome = program.finish();

    std::printf("%s: message after %.2f s, end after %.2f s\n", place.c_str(), told, seconds_since(stop));
    EXPECT_TRUE(said) << place << outcome.all();
    EXPECT_LT(told, 3 + 2) << place << outcome.all();
    EXPECT_EQ(outcome.exit_code, 6) << place << outcome.all();
    EXPECT_EQ(count_of(outcome.err, waits_in + " for more than 1 s. Missing: rank 2 (stopped; pid "), 1)
        << place << outcome.err;
    EXPECT_EQ(count_of(outcome.err, "(comm.start_timeout_s). Missing: rank 2 (stopped; pid "), 1)
        << place << outcome.err;
    EXPECT_EQ(count_of(outcome.err, "which did not return"), 1) << "whoever comes later names nobody: " << outcome.err;
    EXPECT_TRUE(program.all_gone(Seconds(1))) << place;
  }
};

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

TEST_F(Hangs, ARankThatIsStoppedBeforeItsProgramBeginsIsNamed) {
  Program program("mpirun -n 2 " + std::string(train) + ": -n 1 sh -c 'kill -STOP $$; exec " + train + "'", options());
  ASSERT_TRUE(program.wait_for("MPI_Init, which did not return within 3 s"));
  const Outcome outcome = program.finish();

  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("Missing: local rank 2 of this host (has not started)"), std::string::npos) << outcome.err;
  EXPECT_TRUE(program.all_gone(Seconds(1)));
}

TEST_F(Hangs, ARankThatIsStoppedAsItEntersMpiInitIsNamed) { expect_named("init", "MPI_Init"); }
TEST_F(Hangs, ARankThatIsStoppedAsItLeavesMpiInitIsNamed) { expect_named("initialized", "MPI_Init"); }
TEST_F(Hangs, ARankThatIsStoppedAsItMakesItsCommunicatorsIsNamed) {
  expect_named("communicator", "the making of communicators after MPI_Init");
}
TEST_F(Hangs, ARankThatIsStoppedInMpiFinalizeIsNamed) { expect_named("finalize", "MPI_Finalize"); }

TEST_F(Hangs, ARankThatIsStoppedWhileItWaitsInMpiInitIsNamed) {
  const std::string late = "sh -c 'while [ ! -e go ]; do sleep 0.05; done; exec " + std::string(train) + "'";
  const std::string patient = train + std::string("--set comm.start_timeout_s=5 ");
  Program program("mpirun -n 2 " + patient + ": -n 1 " + late, options());
  ASSERT_TRUE(program.wait_for("waits in MPI_Init for more than 1 s"));

  kill(program.ranks().at(1), SIGSTOP);
  write_text(path("go"), "");
  const Clock::time_point stop = Clock::now();
  const Outcome outcome = program.finish();

  std::printf("end after %.2f s\n", seconds_since(stop));
  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("Missing: rank 1 (stopped; pid "), std::string::npos) << outcome.err;
  EXPECT_LT(seconds_since(stop), 5 + 2) << outcome.all();
  EXPECT_TRUE(program.all_gone(Seconds(1)));
}

TEST_F(Hangs, ARankThatSleepsAwayFromItsCollectivesIsNamed) {
  const Clock::time_point start = Clock::now();
  Program program("mpirun -n 3 lockstep train job.yaml --set train_batch_size=9 --set comm.timeout_s=3",
                  options({{"LOCKSTEP_FAULT", "sleep=60@rank1:step5"}}));
  const Outcome outcome = program.finish();

  std::printf("end after %.2f s\n", seconds_since(start));
  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("no answer from rank 1"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("missing on this host: rank 1 (at step 5, in no collective"), std::string::npos)
      << outcome.err;
  EXPECT_TRUE(program.all_gone(Seconds(1)));
}

}  // namespace
}  // namespace lockstep::testing
