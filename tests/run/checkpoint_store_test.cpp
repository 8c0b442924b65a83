#include "run/checkpoint_store.hpp"

#include <set>

#include "tests/run/trainee.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using testing::error_text;
using testing::ScratchFolder;
using Names = std::set<std::string>;

/// A run's folder of checkpoints and somebody who saves into it.
struct Shelf {
  ScratchFolder scratch;
  std::string folder = scratch / "checkpoints";
  Trainee trainee;

  [[nodiscard]] CheckpointStore store(std::int64_t keep_last = 0) const {
    return CheckpointStore({.folder = folder, .keep_last = keep_last, .run_id = "feed"});
  }
  /// Saves as if that many steps had been taken.
  std::string save(std::int64_t step, std::int64_t keep_last = 0, const std::function<void()>& under_way = {}) {
    RunState state = trainee.run_state();
    state.step.attempted = step;
    const Saved saved = store(keep_last).save(*trainee.engine, state, {.under_way = under_way});
    EXPECT_EQ(saved.trouble, "");
    return saved.path;
  }
  [[nodiscard]] Names names() const {
    Names names;
    for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
    return names;
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return folder + "/" + name; }
  void damage(std::int64_t step) const {
    const std::string path = fmt::format("{}/step-{}/model-00001-of-00001.safetensors", folder, step);
    std::string bytes = testing::text_of(path);
    bytes[bytes.size() / 3] ^= 4;
    testing::write_text(path, bytes);
  }
};

TEST(CheckpointStore, KeepLastKeepsTheNewest) {
  Shelf shelf;
  for (const std::int64_t step : {3, 6, 9, 12}) EXPECT_EQ(shelf.save(step, 2), shelf / fmt::format("step-{}", step));
  EXPECT_EQ(shelf.names(), (Names{"step-9", "step-12"}));
}

TEST(CheckpointStore, KeepLastZeroKeepsAll) {
  Shelf shelf;
  for (const std::int64_t step : {3, 6, 9, 12}) shelf.save(step, 0);
  EXPECT_EQ(shelf.names(), (Names{"step-3", "step-6", "step-9", "step-12"}));
}

TEST(CheckpointStore, NeverRemovesWhatWasJustSaved) {
  Shelf shelf;
  shelf.save(40);
  shelf.save(30, 1);
  shelf.save(31, 1);
  EXPECT_EQ(shelf.names(), (Names{"step-31", "step-40"})) << "a step above the saved one is not touched";
}

TEST(CheckpointStore, AnEmptyStepFolderMakesNoSaveDisappear) {
  Shelf shelf;
  shelf.save(10);
  fs::create_directories(shelf / "step-99");
  fs::create_directories(shelf / "step-5");
  shelf.save(20, 1);
  EXPECT_EQ(shelf.names(), (Names{"step-20", "step-5", "step-99"})) << "it neither counts nor goes";
}

TEST(CheckpointStore, NamesOfOthersAreLeftAlone) {
  Shelf shelf;
  const Names theirs = {"step-old",         "step-12.bak",       "step-",
                        "step--5",          "step-007",          "notes",
                        ".step-9.partialx", ".step-x.partial-1", "step-99999999999999999999"};
  for (const std::string& name : theirs) fs::create_directories(shelf / name);
  EXPECT_EQ(newest_checkpoint(shelf.folder).path, std::nullopt);
  shelf.save(7, 1);
  shelf.store().clean_up();
  Names expected = theirs;
  expected.insert("step-7");
  EXPECT_EQ(shelf.names(), expected);
  EXPECT_EQ(newest_checkpoint(shelf.folder).path, shelf / "step-7");
}

TEST(CheckpointStore, AFolderThatDoesNotExistHasNone) {
  const ScratchFolder scratch;
  EXPECT_EQ(newest_checkpoint(scratch / "nothing/here").path, std::nullopt);
}

TEST(CheckpointStore, AFolderThatCannotBeReadIsAnError) {
  const ScratchFolder scratch;
  fs::create_symlink("checkpoints", scratch / "checkpoints");  // leads to itself: ELOOP
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)newest_checkpoint(scratch / "checkpoints"); }),
                  scratch / "checkpoints: cannot be listed");
  testing::write_text(scratch / "file", "in the way");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)newest_checkpoint(scratch / "file"); }),
                  scratch / "file: cannot be listed");
}

TEST(CheckpointStore, AManifestThatCannotBeReadIsNotTakenForDamage) {
  Shelf shelf;
  shelf.save(10);
  shelf.save(20);
  fs::remove(shelf / "step-20/manifest.json");
  fs::create_symlink("manifest.json", shelf / "step-20/manifest.json");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { (void)newest_checkpoint(shelf.folder); }),
                  "step-20/manifest.json: cannot be opened");
}

TEST(CheckpointStore, StepsOfWhichNoneIsWholeAreAnError) {
  Shelf shelf;
  fs::create_directories(shelf / "step-99");
  shelf.save(10);
  shelf.damage(10);
  const std::string text = error_text(ErrorKind::checkpoint, [&] { (void)newest_checkpoint(shelf.folder); });
  expect_contains(text, "not one of the checkpoints there is whole");
  expect_contains(text, "step-99: has no manifest.json");
  expect_contains(text, "step-10/model-00001-of-00001.safetensors: is damaged");
  expect_contains(text, "--resume never");
}

TEST(CheckpointStore, TheNewestWholeOneIsFoundBehindDamagedOnes) {
  Shelf shelf;
  for (const std::int64_t step : {10, 20, 30, 40}) shelf.save(step);
  fs::rename(shelf / "step-10", shelf / "step-50");
  shelf.damage(40);
  testing::write_text(shelf / "step-30/manifest.json", "{");
  const Newest newest = newest_checkpoint(shelf.folder);
  EXPECT_EQ(newest.path, shelf / "step-20");
  ASSERT_EQ(newest.passed_over.size(), 3U);
  expect_contains(newest.passed_over[0], "step-50: is of step 10");
  expect_contains(newest.passed_over[1], "step-40/model-00001-of-00001.safetensors: is damaged");
  expect_contains(newest.passed_over[2], "step-30/manifest.json");
}

TEST(CheckpointStore, WhileAStepIsSavedAgainTheOldOneIsThere) {
  Shelf shelf;
  shelf.save(10);
  shelf.save(10, 0, [&] { EXPECT_EQ(newest_checkpoint(shelf.folder).path, shelf / "step-10"); });
  EXPECT_EQ(shelf.names(), (Names{"step-10"}));
}

TEST(CheckpointStore, AKillBetweenTheTwoRenamesLosesNothing) {
  Shelf shelf;
  shelf.save(5);
  shelf.save(10);
  fs::rename(shelf / "step-10", shelf / ".step-10.replaced-cafe");
  fs::create_directories(shelf / ".step-10.partial-cafe");
  EXPECT_EQ(newest_checkpoint(shelf.folder).path, shelf / ".step-10.replaced-cafe") << "without the lock";
  shelf.store().clean_up();
  EXPECT_EQ(shelf.names(), (Names{"step-5", "step-10"}));
  EXPECT_EQ(newest_checkpoint(shelf.folder).path, shelf / "step-10");
}

TEST(CheckpointStore, CleanUpRemovesWhatKilledJobsLeft) {
  Shelf shelf;
  shelf.save(10);
  for (const char* name : {".step-10.replaced-1", ".step-13.partial-2", ".step-4.retired-3"}) {
    fs::create_directories(shelf / name);
    testing::write_text(shelf / name + "/rubbish", "left by a crash");
  }
  shelf.store().clean_up();
  EXPECT_EQ(shelf.names(), (Names{"step-10"}));
}

TEST(CheckpointStore, ASaveThatFailsLeavesTheOldOneAndNothingElse) {
  Shelf shelf;
  shelf.save(10);
  fs::create_directories(shelf / ".step-3.partial-of_another");
  const auto in_the_way = [&] { fs::create_directories(shelf / ".step-10.partial-feed/manifest.json"); };
  const std::string text = error_text(ErrorKind::checkpoint, [&] { shelf.save(10, 0, in_the_way); });
  expect_contains(text, "the checkpoint of step 10 cannot be saved");
  expect_contains(text, "manifest.json: cannot be made");
  EXPECT_EQ(shelf.names(), (Names{"step-10", ".step-3.partial-of_another"}));
  EXPECT_EQ(newest_checkpoint(shelf.folder).path, shelf / "step-10");
}

TEST(CheckpointStore, StepsAboveTheOneThatGoesOnMoveAside) {
  Shelf shelf;
  for (const std::int64_t step : {10, 20, 30}) shelf.save(step);
  const auto moved = shelf.store().move_aside_above(10);
  ASSERT_TRUE(moved.has_value());
  EXPECT_EQ(moved->folder, shelf / "aside-1");
  EXPECT_EQ(moved->steps, "step-20, step-30");
  EXPECT_EQ(shelf.names(), (Names{"step-10", "aside-1"}));
  verify_files(shelf / "aside-1/step-30", read_manifest(shelf / "aside-1/step-30"));
  EXPECT_FALSE(shelf.store().move_aside_above(10).has_value());
  shelf.save(20);
  EXPECT_EQ(shelf.store().move_aside_above(10)->folder, shelf / "aside-2");
}

TEST(CheckpointStore, AnUnwritableFolderIsNamed) {
  Shelf shelf;
  testing::write_text(shelf.folder, "in the way");
  expect_contains(error_text(ErrorKind::checkpoint, [&] { shelf.save(1); }), shelf.folder);
}

}  // namespace
}  // namespace lockstep::run
