#include <gmock/gmock.h>

#include <set>

#include "run/checkpoint_store.hpp"
#include "run/checkpoint_tools.hpp"
#include "run/run_folder.hpp"
#include "tests/run/trainee.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using Names = std::set<std::string>;

/// A run with steps 10 to 50.
struct Pruned {
  testing::ScratchFolder scratch;
  std::string folder = scratch / "job";
  Trainee trainee;

  Pruned() {
    const CheckpointStore store({.folder = folder + "/checkpoints", .run_id = "feed"});
    for (const std::int64_t step : {10, 20, 30, 40, 50}) {
      RunState state = trainee.run_state();
      state.step.attempted = step;
      EXPECT_EQ(store.save(*trainee.engine, state).trouble, "");
    }
  }
  [[nodiscard]] Names names() const {
    Names names;
    for (const auto& entry : fs::directory_iterator(folder + "/checkpoints"))
      names.insert(entry.path().filename().string());
    return names;
  }
  [[nodiscard]] std::string at(std::int64_t step) const { return fmt::format("{}/checkpoints/step-{}", folder, step); }
};

TEST(CheckpointPrune, TheNewestStayAndMultiplesAndTheRestGoes) {
  const Pruned run;

  const CheckpointReport report = prune_checkpoints(run.folder, {.last = 1, .every = 20});

  EXPECT_TRUE(report.good);
  EXPECT_EQ(run.names(), (Names{"step-20", "step-40", "step-50"}));
  EXPECT_THAT(report.text, HasSubstr("removed " + run.at(10) + ": "));
  EXPECT_THAT(report.text, HasSubstr(run.folder + ": 3 checkpoints stay, 2 removed\n"));
  EXPECT_TRUE(verify_checkpoints(run.folder).good);
}

TEST(CheckpointPrune, ADryRunTellsTheSameAndChangesNothing) {
  const Pruned run;

  const CheckpointReport told = prune_checkpoints(run.folder, {.last = 2, .only_tell = true});

  EXPECT_EQ(run.names(), (Names{"step-10", "step-20", "step-30", "step-40", "step-50"}));
  for (const std::int64_t step : {10, 20, 30}) EXPECT_THAT(told.text, HasSubstr("would remove " + run.at(step) + ": "));
  EXPECT_THAT(told.text, Not(HasSubstr(run.at(40))));
  EXPECT_THAT(told.text, HasSubstr(": 2 checkpoints stay, 3 would go\n"));
}

TEST(CheckpointPrune, DamagedOnesNeitherCountNorGo) {
  const Pruned run;
  std::string bytes = testing::text_of(run.at(50) + "/model-00001-of-00001.safetensors");
  bytes[bytes.size() / 2] ^= 1;
  testing::write_text(run.at(50) + "/model-00001-of-00001.safetensors", bytes);

  const CheckpointReport report = prune_checkpoints(run.folder, {.last = 1});

  EXPECT_FALSE(report.good);
  EXPECT_EQ(run.names(), (Names{"step-40", "step-50"})) << "the newest that is whole is there";
  EXPECT_THAT(report.text, HasSubstr("is damaged: its size or hash differs from the manifest; it stays\n"));
  EXPECT_THAT(report.text, HasSubstr(": 1 checkpoint stays, 3 removed, 1 damaged\n"));
}

TEST(CheckpointPrune, WaitsForNoJobThatHasTheRun) {
  const Pruned run;
  const RunLock lock(run.folder);

  const std::string text =
      testing::error_text(ErrorKind::environment, [&] { (void)prune_checkpoints(run.folder, {.last = 1}); });

  EXPECT_THAT(text, HasSubstr("job"));
  EXPECT_EQ(run.names().size(), 5U);
  EXPECT_THAT(prune_checkpoints(run.folder, {.last = 1, .only_tell = true}).text, HasSubstr("4 would go"))
      << "looking needs no lock";
  EXPECT_THAT(testing::error_text(ErrorKind::config, [&] { (void)prune_checkpoints(run.at(10), {}); }),
              HasSubstr("is no run's folder"));
}

}  // namespace
}  // namespace lockstep::run
