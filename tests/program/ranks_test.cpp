// What concerns ranks as processes: agreement, errors, launchers, signals.
#include <csignal>
#include <thread>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

class Ranks : public ProgramTest {
 protected:
  /// Rank 0 runs the job as it is, rank 1 with `difference`.
  [[nodiscard]] Outcome run_differing(const std::string& difference) const {
    return run("mpirun -n 1 lockstep train job.yaml : -n 1 lockstep train job.yaml " + difference);
  }
  void expect_desync(const std::string& difference, const std::string& text) const {
    const Outcome outcome = run_differing(difference);
    EXPECT_EQ(outcome.exit_code, 7) << outcome.all();
    EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(path("runs"))) << "nothing may have been written";
  }
};

TEST_F(Ranks, WhatMustBeEqualIsComparedBeforeAnythingIsWritten) {
  expect_desync("--set run.seed=2", "run.seed: rank 0 has 1, rank 1 has 2");
  expect_desync("--set gradient_clipping=0.5", "gradient_clipping: rank 0 has 1, rank 1 has 0.5");
  expect_desync("--set train_batch_size=16", "train_batch_size: rank 0 has 8, rank 1 has 16");
  expect_desync("--set bf16.enabled=true", "bf16.enabled: rank 0 has false, rank 1 has true");
  expect_desync("--set run.output_dir=elsewhere", "run.output_dir: rank 0 has runs, rank 1 has elsewhere");
  expect_desync("--set model.hidden=[32]", "model.hidden: rank 0 has [16], rank 1 has [32]");
  expect_desync("--set run.steps=30", "run.steps: rank 0 has 20, rank 1 has 30");
  expect_desync("--resume never", "--resume: rank 0 has not given, rank 1 has never");
}

TEST_F(Ranks, ABitThatChangesOnOneRankEndsTheRunWithItsTensorAndRankBeforeItIsSaved) {
  const std::string train =
      "mpirun --oversubscribe -n 3 lockstep train job.yaml --set train_batch_size=12 "
      "--set run.checkpoint.every=4 --set run.guard.every=5 ";
  const auto after = [&](const std::string& fault, const std::string& more) {
    const Outcome outcome = run(train + more + " --resume never", {{"LOCKSTEP_FAULT", fault}});
    EXPECT_EQ(outcome.exit_code, 7) << outcome.all();
    EXPECT_FALSE(std::filesystem::exists(path("runs/r/checkpoints/step-12"))) << more;
    return outcome.err;
  };

  // Between two looks: found by the next, which a checkpoint brings.
  const std::string found = after("flip@rank2:step10:end", "--set run.guard.every=100 --set comm.one_copy=off");
  EXPECT_NE(found.find("after step 12: rank 2 of 3 holds another value of layers.0.weight (the parameter itself)"),
            std::string::npos)
      << found;
  // Right after a look, where every stage has what only one rank holds.
  for (const char* stage : {"0", "0 --set comm.one_copy=off", "2", "3"}) {
    const std::string changed = after("flip@rank1:step11", std::string("--set zero_optimization.stage=") + stage);
    EXPECT_NE(changed.find("of rank 1 changed between step 10 and the update of step 11"), std::string::npos)
        << stage << ": " << changed;
  }
}

TEST_F(Ranks, ABitThatChangesAfterAResumeIsFoundAsBefore) {
  const std::string train =
      "mpirun --oversubscribe -n 3 lockstep train job.yaml --set train_batch_size=12 "
      "--set run.checkpoint.every=4 --set run.guard.every=5 --set comm.one_copy=off ";
  ASSERT_EQ(run(train + "--set run.steps=8").exit_code, 0);

  const Outcome outcome = run(train, {{"LOCKSTEP_FAULT", "flip@rank2:step9:end"}});

  EXPECT_EQ(outcome.exit_code, 7) << outcome.all();
  EXPECT_NE(outcome.out.find("resume    from runs/r/checkpoints/step-8"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.err.find("after step 10: rank 2 of 3 holds another value of layers.0.weight"), std::string::npos)
      << outcome.err;
}

TEST_F(Ranks, ThreadsMayDiffer) { EXPECT_EQ(run_differing("--set run.threads=1").exit_code, 0); }

TEST_F(Ranks, AnErrorThatAllMeetIsToldOnce) {
  const Outcome outcome = run("mpirun -n 3 lockstep train nothing.yaml");

  EXPECT_EQ(outcome.exit_code, 2) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "nothing.yaml"), 1) << outcome.err;
}

TEST_F(Ranks, AnErrorThatOneRankMeetsIsToldWithRankAndHost) {
  const Outcome job_file = run("mpirun -n 2 lockstep train job.yaml : -n 1 lockstep train nothing.yaml");
  const Outcome option = run("mpirun -n 2 lockstep train job.yaml : -n 1 lockstep train job.yaml --frobnicate");

  EXPECT_EQ(job_file.exit_code, 2) << job_file.all();
  EXPECT_EQ(count_of(job_file.err, "nothing.yaml"), 1) << job_file.err;
  EXPECT_NE(job_file.err.find("rank 2 ("), std::string::npos) << job_file.err;
  EXPECT_EQ(option.exit_code, 2) << option.all();
  EXPECT_NE(option.err.find("rank 2 ("), std::string::npos) << option.err;
  EXPECT_NE(option.err.find("--frobnicate"), std::string::npos) << option.err;
}

TEST_F(Ranks, WhatOneRankMeetsInTheBodyNamesItAndWhatAllLearnIsToldOnce) {
  write_text(path("a.txt"), std::string(2000, 'a') + "b");
  write_text(path("c.txt"), std::string(2000, 'c') + "d");
  write_text(path("text.yaml"),
             "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 8, block_size: 8}\n"
             "data: {type: text, path: a.txt}\nrun: {steps: 2}\ncomm: {timeout_s: 2}\ntrain_batch_size: 6\n");
  const std::string differing = "mpirun -n 2 lockstep train text.yaml : -n 1 lockstep train text.yaml --set data.path=";

  const Outcome missing = run(differing + "no.txt");
  const Outcome other = run(differing + "c.txt");

  EXPECT_EQ(missing.exit_code, 3) << missing.all();
  EXPECT_EQ(count_of(missing.err, "lockstep: "), 1) << missing.err;
  EXPECT_NE(missing.err.find("lockstep: data error: rank 2 ("), std::string::npos) << missing.err;
  EXPECT_EQ(other.exit_code, 7) << other.all();
  EXPECT_EQ(count_of(other.err, "lockstep: "), 1) << other.err;
  EXPECT_NE(other.err.find("rank 2 has other data than rank 0"), std::string::npos) << other.err;
}

TEST_F(Ranks, EndWithTheirLauncher) {
  Program program("mpirun -n 2 lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000",
                  options());
  ASSERT_TRUE(program.wait_for("step  "));
  ASSERT_EQ(program.ranks().size(), 2U);

  program.signal(SIGKILL);

  EXPECT_TRUE(program.all_gone(Seconds(1)));
  EXPECT_EQ(program.finish().exit_code, 128 + SIGKILL);
}

TEST_F(Ranks, EndWithTheirLauncherBehindAWrapperScriptToo) {
  Program program(
      "mpirun -n 2 sh -c ' lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000; true'",
      options());
  ASSERT_TRUE(program.wait_for("step  "));
  ASSERT_EQ(program.ranks().size(), 2U);

  program.signal(SIGKILL);

  EXPECT_TRUE(program.all_gone(Seconds(1)));
}

TEST_F(Ranks, WaitingThreadsSleepAfterAMomentUnlessTheUserSaysOtherwise) {
  const auto setting_of = [&](std::map<std::string, std::string> environment) {
    Program program("lockstep train job.yaml --resume never --set run.steps=100000000 --set run.log_every=100000",
                    options(std::move(environment)));
    EXPECT_TRUE(program.wait_for("step  "));
    const std::string variables = text_of("/proc/" + std::to_string(program.ranks().at(0)) + "/environ");
    const std::size_t at = variables.find("GOMP_SPINCOUNT=");
    return at == std::string::npos ? "" : variables.substr(at, variables.find('\0', at) - at);
  };

  EXPECT_EQ(setting_of({}), "GOMP_SPINCOUNT=3000");
  EXPECT_EQ(setting_of({{"GOMP_SPINCOUNT", "7"}}), "GOMP_SPINCOUNT=7");
  EXPECT_EQ(setting_of({{"OMP_WAIT_POLICY", "active"}}), "");
}

TEST_F(Ranks, ProcessesOfALauncherThatMpiDoesNotKnowAreRefused) {
  const std::map<std::string, std::string> torchrun = {{"WORLD_SIZE", "4"}, {"RANK", "1"}, {"LOCAL_RANK", "1"}};
  const std::map<std::string, std::string> srun = {{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "0"}};
  const std::map<std::string, std::string> batch_script = {{"SLURM_NTASKS", "2"}, {"SLURM_PROCID", "0"}};

  const Outcome by_torchrun = run("lockstep train job.yaml", torchrun);
  const Outcome as_threads = run("lockstep train job.yaml --set comm.backend=local --set comm.ranks=2", torchrun);
  const Outcome with_mpi = run("lockstep train job.yaml --set comm.backend=mpi", torchrun);
  const Outcome by_srun = run("lockstep train job.yaml", srun);

  EXPECT_EQ(by_torchrun.exit_code, 8);
  EXPECT_NE(by_torchrun.err.find("started 4 processes (WORLD_SIZE=4)"), std::string::npos) << by_torchrun.err;
  EXPECT_EQ(as_threads.exit_code, 8) << as_threads.all();
  EXPECT_EQ(with_mpi.exit_code, 8) << with_mpi.all();
  EXPECT_EQ(by_srun.exit_code, 8);
  EXPECT_NE(by_srun.err.find("srun --mpi=pmix"), std::string::npos) << by_srun.err;
  EXPECT_FALSE(std::filesystem::exists(path("runs")));
  EXPECT_EQ(run("lockstep train job.yaml", batch_script).exit_code, 0) << "a batch script is one process";
}

TEST_F(Ranks, ASecondJobOnTheSameRunIsToldWhoHasIt) {
  Program first("mpirun -n 2 lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000", options());
  ASSERT_TRUE(first.wait_for("step  "));

  const Outcome second =
      run("mpirun -n 2 lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000");

  EXPECT_EQ(second.exit_code, 8) << second.all();
  EXPECT_EQ(count_of(second.err, "is in use by pid"), 1) << second.err;
}

class Signals : public ProgramTest {
 protected:
  /// A run that is under way, and must end by a signal.
  [[nodiscard]] std::string endless(const std::string& prefix = "") const {
    return prefix + "lockstep train job.yaml --set run.steps=100000000 --set run.log_every=100000";
  }
};

TEST_F(Signals, SeveralAtOnceAreOneWishAndEachKindSaves) {
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) {
    Program program(endless() + " --resume never", options());
    ASSERT_TRUE(program.wait_for("step  "));

    program.signal(number);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    program.signal(number);
    program.signal(SIGTERM);
    const Outcome outcome = program.finish();

    EXPECT_EQ(outcome.exit_code, 75) << "signal " << number << outcome.all();
    EXPECT_NE(outcome.err.find("everything is saved"), std::string::npos) << outcome.err;
  }
}

TEST_F(Signals, Usr1SavesAndGoesOnAndUsr2SavesAndFinishes) {
  // Without checkpoints of its own accord: any that appears was asked for.
  Program program(endless("mpirun -n 2 ") + " --set run.checkpoint.every=0", options());
  ASSERT_TRUE(program.wait_for("val_loss"));

  program.signal(SIGUSR1);
  EXPECT_TRUE(program.wait_for("checkpoint runs/r/checkpoints/step-"));
  std::this_thread::sleep_for(Seconds(0.3));
  EXPECT_EQ(program.ranks().size(), 2U);
  program.signal(SIGUSR2);
  const Outcome outcome = program.finish();

  EXPECT_EQ(outcome.exit_code, 75) << outcome.all();
  EXPECT_NE(outcome.err.find("everything is saved"), std::string::npos) << outcome.err;
}

TEST_F(Signals, FilesInTheRunFolderAskForTheSameAndAreRemoved) {
  // Without checkpoints of its own accord: any that appears was asked for.
  Program program(endless("mpirun -n 2 ") + " --set run.checkpoint.every=0", options());
  ASSERT_TRUE(program.wait_for("val_loss"));

  write_text(path("runs/r/SAVE"), "");
  EXPECT_TRUE(program.wait_for("checkpoint runs/r/checkpoints/step-"));
  EXPECT_EQ(program.ranks().size(), 2U);
  EXPECT_FALSE(std::filesystem::exists(path("runs/r/SAVE")));
  write_text(path("runs/r/STOP"), "");
  const Outcome outcome = program.finish();

  EXPECT_EQ(outcome.exit_code, 75) << outcome.all();
  EXPECT_FALSE(std::filesystem::exists(path("runs/r/STOP")));
}

TEST_F(Signals, ASaveThatTakesLongerThanTheGraceOfMpirunIsToldWithTheFlagThatHelps) {
  const std::string save = "lockstep train job.yaml --set run.steps=4";
  const Outcome told = run("mpirun -n 2 " + save, {{"LOCKSTEP_DRILL", "slow_save@seconds=1.2"}});
  const Outcome enough = run("mpirun --mca odls_base_sigkill_timeout 30 -n 2 " + save + " --resume never",
                             {{"LOCKSTEP_DRILL", "slow_save@seconds=1.2"}});

  EXPECT_EQ(count_of(told.all(), "--mca odls_base_sigkill_timeout 1"), 1) << told.all();
  EXPECT_EQ(count_of(enough.all(), "odls_base_sigkill_timeout"), 0) << enough.all();
}

class InjectedFaults : public ProgramTest {};

TEST_F(InjectedFaults, AKilledRankCostsTheStepsSinceTheLastSaveAndNothingElse) {
  const std::string train = "mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=5 --set run.name=";
  ASSERT_EQ(run(train + "whole").exit_code, 0);

  // The one rank in the middle of a run, the other between the tensors and the manifest of a save.
  const Outcome first = run(train + "r", {{"LOCKSTEP_FAULT", "kill@rank1:step8"}});
  const Outcome second = run(train + "r", {{"LOCKSTEP_FAULT", "kill@rank0:step15:commit"}});
  const Outcome last = run(train + "r");

  EXPECT_NE(first.exit_code, 0) << first.all();
  EXPECT_NE(first.out.find("faults    LOCKSTEP_FAULT=kill@rank1:step8"), std::string::npos) << first.out;
  EXPECT_NE(second.exit_code, 0) << second.all();
  EXPECT_EQ(last.exit_code, 0) << last.all();
  EXPECT_EQ(run("lockstep compare runs/whole runs/r").exit_code, 0);
  EXPECT_EQ(metrics_lines(), 20);
}

TEST_F(InjectedFaults, AStoppedRankIsNamedAndAMalformedFaultIsRefused) {
  const std::string train = "mpirun -n 3 lockstep train job.yaml --set train_batch_size=9 --set comm.timeout_s=2";
  Program stopped(train, options({{"LOCKSTEP_FAULT", "stop@rank2:step7"}}));
  const Outcome outcome = stopped.finish();
  const bool gone = stopped.all_gone(Seconds(5));
  const Outcome malformed = run(train, {{"LOCKSTEP_FAULT", "kill@step7"}});

  EXPECT_EQ(outcome.exit_code, 6) << outcome.all();
  EXPECT_NE(outcome.err.find("no answer from rank 2"), std::string::npos) << outcome.err;
  EXPECT_TRUE(gone);
  EXPECT_EQ(malformed.exit_code, 2) << malformed.all();
  EXPECT_EQ(count_of(malformed.err, "'kill@step7' is no fault"), 1) << malformed.err;
}

TEST_F(InjectedFaults, ANanOfOneRankIsSkippedByAllAndEndsFp32) {
  const std::string fault = "nan@rank1:step7:layers.1.weight";
  const std::string train =
      "mpirun -n 2 lockstep train job.yaml --set fp16.enabled=true --set "
      "fp16.initial_scale_power=8 --set fp16.hysteresis=1";
  const Outcome skipped = run(train, {{"LOCKSTEP_FAULT", fault}});
  const Outcome fp32 = run("mpirun -n 2 lockstep train job.yaml --resume never", {{"LOCKSTEP_FAULT", fault}});
  const Outcome unknown =
      run("mpirun -n 2 lockstep train job.yaml --resume never", {{"LOCKSTEP_FAULT", "nan@rank0:step1:layers.7.bias"}});

  EXPECT_EQ(skipped.exit_code, 0) << skipped.all();
  EXPECT_NE(
      skipped.out.find("step 7: non-finite gradient in layers.1.weight[0]; update skipped, loss scale 256 -> 128"),
      std::string::npos)
      << skipped.out;
  EXPECT_NE(skipped.out.find("done: 20 steps (19 updates)"), std::string::npos) << skipped.out;
  EXPECT_EQ(fp32.exit_code, 5) << fp32.all();
  EXPECT_EQ(count_of(fp32.err, "step 7: the gradient is not finite"), 1) << fp32.err;
  EXPECT_EQ(count_of(fp32.err, "first non-finite gradient: layers.1.weight[0]"), 1) << fp32.err;
  EXPECT_EQ(unknown.exit_code, 2) << unknown.all();
  EXPECT_EQ(count_of(unknown.err, "the model has no parameter 'layers.7.bias'"), 1) << unknown.err;
}

TEST_F(Signals, EveryRankMayGetTheSameOne) {
  Program program(endless("mpirun -n 2 "), options());
  ASSERT_TRUE(program.wait_for("step  "));

  for (const auto& [rank, pid] : program.ranks()) kill(pid, SIGTERM);
  const Outcome outcome = program.finish();

  EXPECT_EQ(outcome.exit_code, 75) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "everything is saved"), 1) << outcome.err;
}

TEST_F(Signals, AHangUpThatNohupIgnoresStopsNothing) {
  Program program("nohup " + endless(), options());
  ASSERT_TRUE(program.wait_for("step  "));

  program.signal(SIGHUP);
  std::this_thread::sleep_for(Seconds(0.5));

  EXPECT_EQ(program.ranks().size(), 1U);
  program.signal(SIGTERM);
  EXPECT_EQ(program.finish().exit_code, 75);
}

TEST_F(Signals, WhoeverAsksAgainSecondsLaterDoesNotWaitForTheSave) {
  Program program(endless(), options({{"LOCKSTEP_DRILL", "slow_save@seconds=60"}}));
  ASSERT_TRUE(program.wait_for("step  "));

  program.signal(SIGTERM);
  std::this_thread::sleep_for(Seconds(4));
  const bool still_saving = program.ranks().size() == 1;
  program.signal(SIGTERM);
  const Outcome outcome = program.finish(Seconds(10));

  EXPECT_TRUE(still_saving);
  EXPECT_EQ(outcome.exit_code, 128 + SIGTERM) << outcome.all();
}

TEST_F(Signals, AReaderThatGoesAwayEndsNothing) {
  (void)run("lockstep train job.yaml", {}, "2>&1 | head -1");
  EXPECT_EQ(metrics_lines(), 20);
  EXPECT_TRUE(std::filesystem::exists(path("runs/r/checkpoints/step-20/manifest.json")));

  const Outcome closed = run("lockstep train job.yaml --resume never", {}, ">&- 2>&-");
  EXPECT_EQ(closed.exit_code, 0);
  EXPECT_EQ(metrics_lines(), 20);
}

TEST_F(Ranks, ATextIsGeneratedOnceHoweverManyAreStarted) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "three lambs by five rivers.\n";
  write_text(path("text.txt"), text);
  write_text(path("gpt.yaml"),
             "model: {type: gpt2, n_layer: 1, n_head: 1, n_embd: 16, block_size: 16}\n"
             "data: {type: text, path: text.txt}\n"
             "run: {name: gpt, output_dir: runs, steps: 2}\n"
             "train_batch_size: 4\n");
  ASSERT_EQ(run("lockstep train gpt.yaml").exit_code, 0);

  const Outcome alone = run("lockstep generate runs/gpt --prompt three --tokens 8");
  const Outcome two = run("mpirun -n 2 lockstep generate runs/gpt --prompt three --tokens 8");

  EXPECT_EQ(alone.exit_code, 0) << alone.all();
  EXPECT_EQ(two.exit_code, 0) << two.all();
  EXPECT_EQ(two.out, alone.out);
}

}  // namespace
}  // namespace lockstep::testing
