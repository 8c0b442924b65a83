// Saves while training goes on, and disks that do not do what they should.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/program/jobs.hpp"

namespace lockstep::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Names = std::vector<std::string>;

class Saving : public ProgramTest {
 protected:
  static constexpr const char* train = "mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=5 ";

  [[nodiscard]] std::string checkpoints(const std::string& name = "r") const {
    return path("runs/" + name + "/checkpoints");
  }
  [[nodiscard]] static Names names_in(const std::string& folder) {
    Names names;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  /// Of a manifest all but the job, which says where the run's folder is.
  [[nodiscard]] static json manifest_of(const std::string& checkpoint) {
    json manifest = json::parse(text_of(checkpoint + "/manifest.json"));
    manifest.erase("job");
    manifest.erase("manifest_xxh3_128");
    return manifest;
  }
};

TEST_F(Saving, BesideTrainingWritesTheSameFilesAndARunGoesOnFromThemWithTheSameBits) {
  const std::string all = std::string(train) + "--set run.checkpoint.keep_last=0 --set run.name=";
  ASSERT_EQ(run(all + "stopped --set run.checkpoint.async=false").exit_code, 0);

  ASSERT_EQ(run(all + "beside").exit_code, 0);
  const Outcome again =
      run("mpirun -n 2 lockstep train job.yaml --set run.name=again --resume " + checkpoints("beside") + "/step-10");

  EXPECT_EQ(names_in(checkpoints("beside")), (Names{"step-10", "step-15", "step-20", "step-5"}));
  for (const std::string& step : names_in(checkpoints("stopped"))) {
    const std::string a = checkpoints("stopped") + "/" + step, b = checkpoints("beside") + "/" + step;
    ASSERT_EQ(names_in(a), names_in(b));
    EXPECT_EQ(manifest_of(a), manifest_of(b)) << step;
    for (const std::string& file : names_in(a))
      if (file != "manifest.json") {
        EXPECT_EQ(text_of(a + "/" + file), text_of(b + "/" + file)) << step << " " << file;
      }
  }
  EXPECT_EQ(again.exit_code, 0) << again.all();
  EXPECT_EQ(count_of(again.out, "resume verified: loss bits "), 1) << again.out;
  EXPECT_EQ(
      run("lockstep ckpt diff " + checkpoints("again") + "/step-20 " + checkpoints("stopped") + "/step-20").exit_code,
      0);
}

TEST_F(Saving, StepsAreTakenWhileARankWritesAndTheNextSaveWaitsForIt) {
  const std::map<std::string, std::string> slow = {{"LOCKSTEP_FAULT", "sleep=1.5@rank1:step5:writing"}};

  const Outcome beside = run(train, slow);
  const Outcome stopped = run(std::string(train) + "--set run.name=stopped --set run.checkpoint.async=false", slow);

  const auto at = [](const Outcome& outcome, const std::string& text) {
    const std::size_t found = outcome.out.find(text);
    EXPECT_NE(found, std::string::npos) << text << " is not in\n" << outcome.all();
    return found;
  };
  EXPECT_LT(at(beside, "step 10/20"), at(beside, "checkpoint runs/r/checkpoints/step-5\n"));
  EXPECT_LT(at(beside, "checkpoint runs/r/checkpoints/step-5\n"),
            at(beside, "checkpoint runs/r/checkpoints/step-10\n"));
  EXPECT_LT(at(beside, "checkpoint runs/r/checkpoints/step-5\n"), at(beside, "step 11/20"));
  EXPECT_LT(at(stopped, "checkpoint runs/stopped/checkpoints/step-5\n"), at(stopped, "step  6/20"));
}

TEST_F(Saving, WithoutRoomForTheCopyTrainingStopsForASaveAndThatIsSaid) {
  const std::string job = "job.yaml --set run.checkpoint.every=5 --set model.hidden=[512,512] ";
  const json memory = json::parse(run("lockstep preview " + job + "--json").out)["memory"];
  const double total = memory["total"], saving = memory["saving"];
  const auto limited = [&](double bytes) {
    return run("lockstep train " + job +
               "--resume never --set run.memory_limit=" + std::to_string(bytes / 1024 / 1024 / 1024));
  };

  const Outcome enough = limited(total + saving / 4), little = limited(total - saving / 2);

  EXPECT_GT(saving, 3e6) << "three numbers a parameter";
  EXPECT_EQ(enough.exit_code, 0) << enough.all();
  EXPECT_EQ(count_of(enough.out, "saving    "), 0) << enough.out;
  EXPECT_EQ(little.exit_code, 0) << little.all();
  EXPECT_EQ(count_of(little.out, "saving    training stops while a checkpoint is written: "), 1) << little.out;
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-10", "step-15", "step-20"}));
}

TEST_F(Saving, AKillBetweenTheCopyAndTheCommitLeavesTheOlderCheckpointAndCostsNothingElse) {
  ASSERT_EQ(run(std::string(train) + "--set run.name=whole").exit_code, 0);

  const Outcome killed = run(train, {{"LOCKSTEP_FAULT", "kill@rank1:step10:writing"}});
  const Names left = names_in(checkpoints());
  const Outcome again = run(train);

  EXPECT_NE(killed.exit_code, 0) << killed.all();
  ASSERT_EQ(left.size(), 2U);
  EXPECT_EQ(left[0].find(".step-10.partial-"), 0U) << left[0];
  EXPECT_EQ(left[1], "step-5");
  EXPECT_EQ(again.exit_code, 0) << again.all();
  EXPECT_EQ(count_of(again.out, "resume    from runs/r/checkpoints/step-5"), 1) << again.out;
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-10", "step-15", "step-20"}));
  EXPECT_EQ(run("lockstep compare runs/whole runs/r").exit_code, 0);
}

TEST_F(Saving, ADiskThatIsFullOrFailsOnOneRankCostsThatSaveAlone) {
  const Outcome outcome = run(train, {{"LOCKSTEP_FAULT", "enospc@rank1:step6,eio@rank0:step11"}});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.out, "the checkpoint of step 10 cannot be saved: rank 1: "), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "No space left on device; training goes on"), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "the checkpoint of step 15 cannot be saved: "), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.out, "Input/output error; training goes on"), 1) << outcome.out;
  EXPECT_EQ(count_of(outcome.all(), "2 saves given up because of the disk; the last one is there"), 1) << outcome.all();
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-20", "step-5"}));
  EXPECT_EQ(metrics_lines(), 20);
}

TEST_F(Saving, ARunThatDivergesSeesToTheEndOfTheSaveUnderWay) {
  const Outcome outcome =
      run("mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=1 --set optimizer.type=SGD "
          "--set optimizer.params.lr=1e38 --set gradient_clipping=0",
          {{"LOCKSTEP_FAULT", "sleep=0.5@rank1:step1:writing"}});

  EXPECT_EQ(outcome.exit_code, 5) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "diverged: step 2: the gradient is not finite"), 1) << outcome.err;
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-1"}));
}

TEST_F(Saving, OnTheLastSaveNobodyIsToldThatTrainingGoesOn) {
  const Outcome outcome = run(train, {{"LOCKSTEP_FAULT", "eio@rank0:step20:save"}});

  EXPECT_EQ(outcome.exit_code, 4) << outcome.all();
  EXPECT_EQ(count_of(outcome.all(), "training goes on"), 0) << outcome.all();
  EXPECT_EQ(count_of(outcome.err, "step 20 was reached, but it is not saved"), 1) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "run the same command again"), 1) << outcome.err;
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-10", "step-15", "step-5"}));
}

/// Two ranks of one job that see different things under the run's folder, as on hosts whose disks are their own.
class OwnDisks : public Saving {
 protected:
  /// On rank 1 the folder `there` lies over the run's checkpoints.
  [[nodiscard]] Outcome run_with(const std::string& there, const std::string& options = "") const {
    const std::string job = "train job.yaml --set run.checkpoint.every=5 " + options;
    return run("mpirun -n 1 lockstep " + job + " : -n 1 unshare -m sh -ec 'mount --bind " + there +
               " runs/r/checkpoints; exec lockstep " + job + "'");
  }
  [[nodiscard]] bool may_mount() const { return run("unshare -m sh -ec 'mount --bind . .'").exit_code == 0; }
};

TEST_F(OwnDisks, ACheckpointThatIsOlderOnOneHostIsRefusedThere) {
  if (!may_mount()) GTEST_SKIP() << "no file system may be mounted here";
  ASSERT_EQ(run(std::string(train) + "--set run.steps=10 --set run.seed=2").exit_code, 0);
  fs::rename(checkpoints(), path("stale"));
  fs::remove(path("runs/r/metrics.jsonl"));
  ASSERT_EQ(run(std::string(train) + "--set run.steps=10").exit_code, 0);
  fs::create_directories(path("empty"));
  const std::string metrics = text_of(path("runs/r/metrics.jsonl"));

  const Outcome stale = run_with(path("stale")), nothing = run_with(path("empty"));

  for (const auto& [outcome, said] : {std::pair{&stale, "is damaged: its size or hash differs from the manifest"},
                                      std::pair{&nothing, "is missing"}}) {
    EXPECT_EQ(outcome->exit_code, 4) << outcome->all();
    EXPECT_EQ(count_of(outcome->err, "rank 1 ("), 1) << outcome->err;
    EXPECT_EQ(count_of(outcome->err, said), 1) << outcome->err;
    EXPECT_EQ(count_of(outcome->err, "All hosts need the run's folder on a file system that they share"), 1);
  }
  EXPECT_EQ(text_of(path("runs/r/metrics.jsonl")), metrics) << "nothing was changed";
  EXPECT_EQ(run(train).exit_code, 0) << "where both see the same it goes on";
}

TEST_F(OwnDisks, AFolderThatIsNotSharedIsNamedAtTheFirstSave) {
  if (!may_mount()) GTEST_SKIP() << "no file system may be mounted here";
  fs::create_directories(checkpoints());
  fs::create_directories(path("empty"));

  for (const char* options : {"", "--set run.checkpoint.async=false"}) {
    const Outcome outcome = run_with(path("empty"), options);

    EXPECT_EQ(outcome.exit_code, 4) << outcome.all();
    EXPECT_EQ(count_of(outcome.err, "the checkpoint of step 5 cannot be saved: rank 1: "), 1) << outcome.err;
    EXPECT_EQ(count_of(outcome.err, "all hosts need the run's folder on a file system that they share"), 1);
    EXPECT_EQ(names_in(checkpoints()), Names{}) << "nothing of it is left";
  }
}

TEST_F(Saving, AReadOnlyFolderIsReadFromAndNamedAtTheFirstSave) {
  ASSERT_EQ(run(std::string(train) + "--set run.name=whole").exit_code, 0);
  ASSERT_EQ(run(std::string(train) + "--set run.steps=10").exit_code, 0);
  const auto with_read_only = [&](const std::string& folder) {
    return run("unshare -m sh -ec 'mount --bind " + folder + " " + folder + "; mount -o remount,ro,bind " + folder +
               "; exec mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=5'");
  };
  if (run("unshare -m sh -ec 'mount --bind runs runs'").exit_code != 0)
    GTEST_SKIP() << "no file system may be mounted here";

  const Outcome checkpoints_only = with_read_only("runs/r/checkpoints");
  const Outcome everything = with_read_only("runs");

  EXPECT_EQ(checkpoints_only.exit_code, 4) << checkpoints_only.all();
  EXPECT_EQ(count_of(checkpoints_only.out, "resume    from runs/r/checkpoints/step-10"), 1) << checkpoints_only.out;
  EXPECT_EQ(count_of(checkpoints_only.err, "the checkpoint of step 15 cannot be saved: runs/r/checkpoints/.step-15."),
            1)
      << checkpoints_only.err;
  EXPECT_EQ(count_of(checkpoints_only.err, "Read-only file system"), 1) << checkpoints_only.err;
  EXPECT_EQ(everything.exit_code, 8) << everything.all();
  EXPECT_EQ(count_of(everything.err, "Read-only file system"), 1) << everything.err;
  EXPECT_EQ(names_in(checkpoints()), (Names{"step-10", "step-5"}));
  EXPECT_EQ(run(train).exit_code, 0);
  EXPECT_EQ(run("lockstep compare runs/whole runs/r").exit_code, 0);
}

TEST_F(Saving, WhatMayNotBeReadOrWrittenIsAnErrorAndNotAbsence) {
  // Root may everything, so it becomes somebody else.
  const bool root = run("test `id -u` = 0").exit_code == 0;
  const std::string as_somebody = root ? "setpriv --reuid 65534 --regid 65534 --clear-groups " : "";
  if (root) {
    if (run("chown -R 65534:65534 .").exit_code != 0 || run(as_somebody + "lockstep config job.yaml").exit_code != 0)
      GTEST_SKIP() << "nobody else may run the program here";
  }
  const std::string alone = as_somebody + "lockstep train job.yaml --set run.checkpoint.every=5 ";
  ASSERT_EQ(run(alone + "--set run.steps=10").exit_code, 0);

  fs::permissions(checkpoints(), fs::perms::owner_read | fs::perms::owner_exec);
  const Outcome unwritable = run(alone);
  fs::permissions(checkpoints(), fs::perms::owner_all);
  fs::permissions(checkpoints() + "/step-10", fs::perms::none);
  const Outcome unreadable = run(alone);
  fs::permissions(checkpoints() + "/step-10", fs::perms::owner_all);
  const Outcome mended = run(alone);

  EXPECT_EQ(unwritable.exit_code, 4) << unwritable.all();
  EXPECT_EQ(count_of(unwritable.err, "the checkpoint of step 15 cannot be saved: runs/r/checkpoints/.step-15."), 1)
      << unwritable.err;
  EXPECT_EQ(count_of(unwritable.err, "Permission denied"), 1) << unwritable.err;
  EXPECT_EQ(unreadable.exit_code, 4) << unreadable.all();
  EXPECT_EQ(count_of(unreadable.err, "runs/r/checkpoints/step-10/manifest.json: cannot be "), 1) << unreadable.err;
  EXPECT_EQ(count_of(unreadable.err, "Permission denied"), 1) << "step-5 is not taken for it: " << unreadable.err;
  EXPECT_EQ(mended.exit_code, 0) << mended.all();
}

TEST_F(Saving, ARunThatIsRolledBackByHandTakesTheStepsAgain) {
  ASSERT_EQ(run(std::string(train) + "--set run.name=whole").exit_code, 0);
  ASSERT_EQ(run(train).exit_code, 0);
  for (const char* removed : {"/step-15", "/step-20"}) fs::remove_all(checkpoints() + removed);

  const Outcome back = run(train);
  fs::remove_all(checkpoints());
  const Outcome begun = run(train);

  EXPECT_EQ(back.exit_code, 0) << back.all();
  EXPECT_EQ(count_of(back.out, "resume    from runs/r/checkpoints/step-10"), 1) << back.out;
  EXPECT_EQ(
      count_of(back.out, "note      runs/r/metrics.jsonl: 10 steps behind step 10, of which there is no checkpoint"), 1)
      << back.out;
  EXPECT_EQ(begun.exit_code, 0) << begun.all();
  EXPECT_EQ(
      count_of(begun.out, "note      runs/r/metrics.jsonl: 20 steps behind step 0, of which there is no checkpoint"), 1)
      << begun.out;
  EXPECT_EQ(metrics_lines(), 20);
  EXPECT_EQ(run("lockstep compare runs/whole runs/r").exit_code, 0);
}

}  // namespace
}  // namespace lockstep::testing
