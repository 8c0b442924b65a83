// What a run leaves on the disk when processes die, wait or meet each other.
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/program/jobs.hpp"
#include "tests/support/checkpoint_tensors.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class Durable : public ProgramTest {
 protected:
  static constexpr const char* train = "mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=5 ";

  /// metrics.jsonl of a run, without what depends on the clock.
  [[nodiscard]] std::vector<json> lines(const std::string& name) const {
    std::ifstream in(path("runs/" + name + "/metrics.jsonl"));
    std::vector<json> result;
    for (std::string text; std::getline(in, text);) {
      json& line = result.emplace_back(json::parse(text));
      line.erase("samples_per_s");
      line.erase("step_ms");
      line.erase("memory_bytes");
    }
    return result;
  }
  [[nodiscard]] std::vector<std::string> checkpoints(const std::string& name = "r") const {
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(path("runs/" + name + "/checkpoints"), none))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  /// Waits until a checkpoint is being written; returns its temporary name, which differs from `old`.
  [[nodiscard]] std::string saving(const std::string& old = "") const {
    for (int i = 0; i < 3000; ++i) {
      for (const std::string& name : checkpoints())
        if (name.find(".partial-") != std::string::npos && name != old) return name;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "no save began";
    return {};
  }
};

TEST_F(Durable, AJobKilledInTheMiddleOfASaveGoesOnAsIfNothingHadHappened) {
  ASSERT_EQ(run(std::string(train) + "--set run.name=undisturbed").exit_code, 0);
  std::string left;
  for (const bool whole_job : {true, false}) {
    Program program(train, options({{"LOCKSTEP_DRILL", "slow_save@seconds=30"}}));
    left = saving(left);

    if (whole_job)
      program.signal(SIGKILL);
    else
      kill(program.ranks().at(0), SIGKILL);

    EXPECT_NE(program.finish().exit_code, 0);
    ASSERT_TRUE(program.all_gone(Seconds(1)));
    EXPECT_EQ(checkpoints().front(), left) << "the next job sweeps it away";
  }
  const Outcome again = run(train);

  EXPECT_EQ(again.exit_code, 0) << again.all();
  EXPECT_EQ(lines("r"), lines("undisturbed"));
  EXPECT_EQ(logical_tensors(path("runs/r/checkpoints/step-20")),
            logical_tensors(path("runs/undisturbed/checkpoints/step-20")));
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"step-10", "step-15", "step-20"}));
}

TEST_F(Durable, ASaveMayTakeLongerThanTheRanksWaitForEachOther) {
  const Outcome outcome = run(std::string(train) + "--set run.checkpoint.every=0 --set comm.timeout_s=2",
                              {{"LOCKSTEP_DRILL", "slow_save@seconds=4"}});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"step-20"}));
}

TEST_F(Durable, ARunStartedAnewRightAfterAKillIsItsOwn) {
  Program killed(std::string(train) + "--set run.steps=100000000 --set run.checkpoint.every=1000", options());
  ASSERT_TRUE(killed.wait_for("step  "));

  killed.signal(SIGKILL);
  const Outcome anew = run(std::string(train) + "--resume never");

  EXPECT_EQ(anew.exit_code, 0) << anew.all();
  EXPECT_EQ(lines("r").size(), 20U);
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"step-10", "step-15", "step-20"}));
  EXPECT_TRUE(fs::exists(path("runs/r.old-1/metrics.jsonl")));
}

TEST_F(Durable, OfTwoJobsStartedTogetherOneRuns) {
  const std::string command = std::string(train) + "--set run.checkpoint.every=0";
  Program first(command, options({{"LOCKSTEP_DRILL", "slow_save@seconds=5"}}));
  Program second(command, options({{"LOCKSTEP_DRILL", "slow_save@seconds=5"}}));

  const int codes[] = {first.finish().exit_code, second.finish().exit_code};

  EXPECT_TRUE((codes[0] == 0 && codes[1] == 8) || (codes[0] == 8 && codes[1] == 0)) << codes[0] << " " << codes[1];
  EXPECT_EQ(lines("r").size(), 20U);
}

TEST_F(Durable, CheckpointsThatCannotBeUsedAreAnErrorBeforeAnythingIsTouched) {
  ASSERT_EQ(run(train).exit_code, 0);
  const std::string metrics = text_of(path("runs/r/metrics.jsonl"));
  for (const std::string& name : checkpoints()) fs::remove(path("runs/r/checkpoints/" + name + "/manifest.json"));

  const Outcome outcome = run(std::string(train) + "--set run.steps=40");

  EXPECT_EQ(outcome.exit_code, 4) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "not one of the checkpoints there is whole"), 1) << outcome.err;
  EXPECT_EQ(text_of(path("runs/r/metrics.jsonl")), metrics);
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"step-10", "step-15", "step-20"}));
}

TEST_F(Durable, MetricsThatDoNotFitOnTheDiskDoNotStopTheRun) {
  // A limit of 8 KiB a file: a checkpoint of this model fits, 100 lines of metrics do not.
  const Outcome outcome =
      run("ulimit -f 16 && lockstep train job.yaml --set run.steps=100 --set run.log_every=0", {}, "2>&1");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.out, "metrics.jsonl cannot be written"), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "lines are lost"), 1) << outcome.out;
  const std::vector<json> written = lines("r");
  EXPECT_GT(written.size(), 20U);
  EXPECT_LT(written.size(), 60U);
  EXPECT_EQ(checkpoints(), (std::vector<std::string>{"step-100"}));
}

TEST_F(Durable, ADiskThatIsFullGivesSavesUpAndNotTheRun) {
  // A disk of 16 pages, seen by this job alone: one or two checkpoints fit.
  const auto in_small = [](const std::string& body) {
    return "unshare -m sh -ec 'mkdir -p small; mount -t tmpfs -o size=64k none small; cp job.yaml small; cd small; " +
           body + "'";
  };
  if (run(in_small("true")).exit_code != 0) GTEST_SKIP() << "no file system may be mounted here";
  const std::string job =
      "mpirun -n 2 lockstep train job.yaml --set model.hidden=[48] --set run.checkpoint.every=5 "
      "--set run.checkpoint.keep_last=0";

  const Outcome full = run(in_small(job + " || echo ended with $?; mount -o remount,size=4m none .; " + job));

  EXPECT_EQ(full.exit_code, 0) << full.all();
  EXPECT_EQ(count_of(full.out, "ended with 4"), 1) << full.all();
  EXPECT_GE(count_of(full.out, "cannot be saved: "), 2) << full.all();
  EXPECT_EQ(count_of(full.err, "step 20 was reached, but it is not saved"), 1) << full.err;
  EXPECT_EQ(count_of(full.out, "resume    from runs/r/checkpoints/step-"), 1) << full.out;
  EXPECT_EQ(count_of(full.out, "checkpoint runs/r/checkpoints/step-20"), 1) << full.out;
}

TEST_F(Durable, AResumeWithAnotherOptimizerModelOrDataIsRefusedAndGoingBackGoesOn) {
  const std::string whole = "mpirun -n 2 lockstep train job.yaml --set run.eval_every=10 --set run.name=whole";
  const std::string half = "mpirun -n 2 lockstep train job.yaml --set run.eval_every=10 --set run.steps=10";
  ASSERT_EQ(run(whole).exit_code, 0);
  ASSERT_EQ(run(half).exit_code, 0);
  for (const auto& [change, said] :
       std::map<std::string, std::string>{{"--set optimizer.type=SGD", "optimizer.type: AdamW -> SGD"},
                                          {"--set model.hidden=[16,8]", "model.hidden: [16] -> [16, 8]"},
                                          {"--set data.noise=0.25", "data.noise: 0.5 -> 0.25"}}) {
    const Outcome outcome = run("mpirun -n 2 lockstep train job.yaml " + change);

    EXPECT_EQ(outcome.exit_code, 4) << outcome.all();
    EXPECT_EQ(count_of(outcome.err, said), 1) << outcome.err;
  }

  const Outcome back = run("mpirun -n 2 lockstep train job.yaml --set run.eval_every=10");

  EXPECT_EQ(back.exit_code, 0) << back.all();
  EXPECT_NE(back.out.find("changed since: run.steps: 10 -> 20"), std::string::npos) << back.out;
  EXPECT_EQ(lines("r"), lines("whole"));
}

TEST_F(Durable, ARunsFolderMeansItsNewestCheckpoint) {
  ASSERT_EQ(run("lockstep train job.yaml --set run.steps=10").exit_code, 0);

  const Outcome outcome = run("lockstep train job.yaml --set run.name=further --resume runs/r");
  const Outcome none = run("lockstep train job.yaml --resume runs");

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_NE(outcome.out.find("resume    from runs/r/checkpoints/step-10: step 10"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("(given)"), std::string::npos) << outcome.out;
  EXPECT_EQ(lines("further").size(), 10U);
  EXPECT_EQ(none.exit_code, 4) << none.all();
}

}  // namespace
}  // namespace lockstep::testing
