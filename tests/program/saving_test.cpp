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
  const Outcome outcome = run(
      "mpirun -n 2 lockstep train job.yaml --set run.checkpoint.every=1 --set optimizer.type=SGD "
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

}  // namespace
}  // namespace lockstep::testing
