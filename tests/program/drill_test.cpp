// lockstep drill: crashes rehearsed under a real mpirun.
#include <gmock/gmock.h>

#include <filesystem>
#include <sstream>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class DrillCommand : public ProgramTest {
 protected:
  /// Long enough for a step of 0.3 ms.
  DrillCommand() {
    write_text(path("long.yaml"),
               "model: {type: mlp, hidden: [256, 256]}\n"
               "data: {type: clusters, classes: 8, features: 64, samples: 4000}\n"
               "run: {steps: 4000, output_dir: runs, eval_every: 0, log_every: 0, checkpoint: {every: 50}}\n"
               "train_batch_size: 256\n");
  }
};

TEST_F(DrillCommand, ThirtyKillsLeaveNoTraceInTheRunAndNothingOnTheDisk) {
  const Outcome outcome = run_program("lockstep drill long.yaml --kills 30 -n 2 --seed 5", options(), Seconds(280));

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("seed 5; in runs/long.drill"));
  EXPECT_THAT(outcome.out, ContainsRegex("kills     30: training [0-9]+ \\(.*\\), saving [0-9]+ \\(.*\\), starting "));
  EXPECT_THAT(outcome.out, ContainsRegex("lost      median [0-9]+ steps? of a crash, at most"));
  EXPECT_THAT(outcome.out, ContainsRegex("recovery  from the kill to the first new step: median"));
  EXPECT_THAT(outcome.out, HasSubstr("PASS      4000 lines of metrics and the parameters equal bit for bit"));
  EXPECT_FALSE(std::filesystem::exists(path("runs/long.drill")));
}

TEST_F(DrillCommand, ItsHelpEndsWithTwoExamplesThatWorkOnAJobThatSavesOnItsWay) {
  std::filesystem::rename(path("long.yaml"), path("job.yaml"));

  const Outcome help = run("lockstep drill --help");
  const std::size_t begin = help.out.find("Examples:\n");
  ASSERT_NE(begin, std::string::npos) << help.out;
  std::istringstream examples(help.out.substr(begin + 10));
  int count = 0;
  for (std::string example; std::getline(examples, example); ++count) {
    const Outcome outcome = run_program(example.substr(2), options(), Seconds(120));
    EXPECT_EQ(outcome.exit_code, 0) << example << "\n" << outcome.all();
    EXPECT_THAT(outcome.out, HasSubstr("\nPASS ")) << example;
  }
  EXPECT_EQ(count, 2) << help.out;
}

TEST_F(DrillCommand, ARunThatIsNotTheUndisturbedOneAfterAKillFailsAndStays) {
  const Outcome outcome = run("lockstep drill long.yaml --kills 1 -n 1 --seed 5 --dir here --set train_batch_size=64",
                              {{"LOCKSTEP_FAULT", "flip@rank0:step3"}});

  EXPECT_EQ(outcome.exit_code, 1) << outcome.all();
  EXPECT_THAT(outcome.out, HasSubstr("failure   metrics.jsonl differs in line 3"));
  EXPECT_THAT(outcome.out, HasSubstr("failure   the parameters or moments differ"));
  EXPECT_THAT(outcome.out, HasSubstr("FAIL      2 failures; both runs are in here"));
  EXPECT_TRUE(std::filesystem::exists(path("here/disturbed/metrics.jsonl")));
  EXPECT_TRUE(std::filesystem::exists(path("here/undisturbed/metrics.jsonl")));
}

TEST_F(DrillCommand, AFolderThatIsThereIsNotTouched) {
  std::filesystem::create_directories(path("runs/long.drill"));

  const Outcome outcome = run("lockstep drill long.yaml");

  EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_THAT(outcome.err, HasSubstr("runs/long.drill is there already, and nothing is overwritten"));
  EXPECT_TRUE(std::filesystem::is_empty(path("runs/long.drill")));
}

TEST_F(DrillCommand, AJobThatIsTooShortIsToldTheStepsItNeeds) {
  const Outcome outcome = run("lockstep drill job.yaml -n 1 --set run.checkpoint.every=5");

  EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_THAT(outcome.err,
              ContainsRegex("the job is too short: 20 steps of .* it needs ([0-9]+) steps: --set run.steps="));
  EXPECT_FALSE(std::filesystem::exists(path("runs/job.drill")));
}

TEST_F(DrillCommand, WhatCannotBeRehearsedIsSaidBeforeAnythingIsDone) {
  const Outcome at_the_end = run("lockstep drill job.yaml --set run.checkpoint.every=0");
  const Outcome fast = run("lockstep drill job.yaml --set run.determinism=fast");
  const Outcome timed = run("lockstep drill job.yaml --set train_micro_batch_size_per_gpu=auto");
  const Outcome within = run("mpirun -n 1 lockstep drill job.yaml");
  const Outcome no_launcher = run("/usr/bin/env PATH=/nowhere lockstep drill job.yaml");

  EXPECT_EQ(at_the_end.exit_code, 2) << at_the_end.all();
  EXPECT_THAT(at_the_end.err, HasSubstr("run.checkpoint.every is 0"));
  EXPECT_EQ(fast.exit_code, 2) << fast.all();
  EXPECT_THAT(fast.err, HasSubstr("add --set run.determinism=exact"));
  EXPECT_EQ(timed.exit_code, 2) << timed.all();
  EXPECT_THAT(timed.err, HasSubstr("give the number"));
  EXPECT_EQ(within.exit_code, 2) << within.all();
  EXPECT_THAT(within.err, HasSubstr("call it without: lockstep drill job.yaml -n 2"));
  EXPECT_EQ(no_launcher.exit_code, 8) << no_launcher.all();
  EXPECT_THAT(no_launcher.err, HasSubstr("there is no mpirun in PATH"));
  EXPECT_FALSE(std::filesystem::exists(path("runs")));
}

TEST_F(DrillCommand, AnUndisturbedRunThatFailsSaysWhyWithItsOwnCode) {
  const Outcome outcome = run("lockstep drill job.yaml -n 3");  // a batch of 8 on 3 ranks

  EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_THAT(outcome.err, HasSubstr("the undisturbed run ended with exit code 2:\n  | "));
  EXPECT_FALSE(std::filesystem::exists(path("runs/job.drill")));
}

}  // namespace
}  // namespace lockstep::testing
