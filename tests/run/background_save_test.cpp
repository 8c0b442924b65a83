#include "run/background_save.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <latch>
#include <stdexcept>

#include "run/fault_disk.hpp"
#include "tests/run/trainee.hpp"
#include "tests/support/crash_disk.hpp"

namespace lockstep::run {
namespace {

using testing::CrashDisk;

constexpr const char* folder = "/run/checkpoints";

RunState state_at(std::int64_t step) {
  RunState state = some_state();
  state.step.attempted = state.step.applied = step;
  return state;
}

CheckpointStore store_on(files::FileSystem& disk) {
  return CheckpointStore({.folder = folder, .run_id = "feed"}, disk);
}

/// Trains until the save under way has ended, as the trainer does; how it ended.
Saved train_through(BackgroundSave& save, engine::Engine& engine, const data::Dataset& dataset, std::int64_t step) {
  for (;; ++step) {
    save.report();
    testing::train_step(engine, dataset, step);
    engine.drain();
    const std::int64_t wishes = engine.results().back().stop;
    if ((wishes & engine::Engine::still_busy) != 0) continue;
    if (const auto saved = save.advance()) return *saved;
  }
}

TEST(BackgroundSave, WritesToTheByteWhatASaveThatStopsTrainingWrites) {
  for (const int stage : {0, 1, 3})
    for (const int ranks : {1, 2, 3}) {
      CrashDisk stopped, beside;
      engines_on(
          testing::mlp_task(), ranks, 7,
          [&](engine::Engine& engine) {
            const auto dataset = testing::mlp_task().dataset();
            const CheckpointStore there = store_on(stopped), here = store_on(beside);
            BackgroundSave save(here, engine);
            for (int step = 0; step < 5; ++step) testing::train_step(engine, *dataset, step);
            engine.drain();
            (void)engine.results();

            (void)there.save(engine, state_at(5));
            save.begin(state_at(5), {});
            const Saved saved = train_through(save, engine, *dataset, 5);

            EXPECT_EQ(saved.path, std::string(folder) + "/step-5");
            EXPECT_EQ(saved.trouble, "");
            EXPECT_FALSE(save.under_way());
          },
          stage);
      const std::string path = std::string(folder) + "/step-5";
      ASSERT_EQ(beside.names(path), stopped.names(path));
      EXPECT_EQ(beside.names(folder), std::vector<std::string>{"step-5"});
      for (const std::string& name : stopped.names(path))
        EXPECT_EQ(*beside.bytes_of(path + "/" + name), *stopped.bytes_of(path + "/" + name))
            << name << ", " << ranks << " ranks, stage " << stage;
    }
}

TEST(BackgroundSave, NoRankGoesOnBeforeTheSlowestHasWrittenAndNobodyWaits) {
  CrashDisk disk;
  std::latch may_end(1);
  engines_on(testing::mlp_task(), 3, 7, [&](engine::Engine& engine) {
    const auto dataset = testing::mlp_task().dataset();
    const CheckpointStore store = store_on(disk);
    BackgroundSave save(store, engine);
    const bool slow = engine.comm().rank() == 1;
    save.begin(state_at(10), {.writing = [&] {
                 if (slow) may_end.wait();
               }});
    bool writing = false;
    std::int64_t step = 0;
    for (int busy = 0; busy < 20; ++step) {
      save.report();
      testing::train_step(engine, *dataset, step);
      engine.drain();
      const bool somebody = (engine.results().back().stop & engine::Engine::still_busy) != 0;
      EXPECT_TRUE(somebody || !writing) << "rank 1 writes";
      if (writing) ++busy;
      if (!somebody && !writing) writing = !save.advance().has_value();  // the folder is there
    }
    EXPECT_EQ(disk.names(folder), std::vector<std::string>{".step-10.partial-feed"});
    engine.comm().barrier();
    if (slow) may_end.count_down();

    EXPECT_EQ(train_through(save, engine, *dataset, step).path, std::string(folder) + "/step-10");
  });
  EXPECT_EQ(disk.names(folder), std::vector<std::string>{"step-10"});
}

TEST(BackgroundSave, ADiskThatIsFullOnOneRankGivesTheSaveUpOnAllAndTheNextOneCommits) {
  for (const int error : {ENOSPC, EIO}) {
    CrashDisk disk;
    engines_on(testing::mlp_task(), 2, 7, [&](engine::Engine& engine) {
      FaultDisk mine(disk);
      const CheckpointStore store = store_on(mine);
      BackgroundSave save(store, engine);
      if (engine.comm().rank() == 1) mine.fail_with(error);
      save.begin(state_at(10), {});
      const Saved first = save.finish();
      mine.fail_with(0);
      save.begin(state_at(20), {});
      const Saved second = save.finish();

      EXPECT_EQ(first.path, "");
      expect_contains(first.trouble, "the checkpoint of step 10 cannot be saved: rank 1: /run/checkpoints/.step-10.");
      expect_contains(first.trouble, std::strerror(error));
      EXPECT_EQ(second.path, std::string(folder) + "/step-20");
      EXPECT_EQ(second.trouble, "");
    });
    EXPECT_EQ(disk.names(folder), std::vector<std::string>{"step-20"});
  }
}

TEST(BackgroundSave, ErrorsThatAreNotTheDisksAreThrownOnEveryRank) {
  CrashDisk disk;
  std::atomic<int> told = 0;
  engines_on(testing::mlp_task(), 2, 7, [&](engine::Engine& engine) {
    const CheckpointStore store = store_on(disk);
    BackgroundSave save(store, engine);
    const bool second = engine.comm().rank() == 1;
    save.begin(state_at(10), {.writing = [&] {
                 if (second) throw std::runtime_error("something else");
               }});
    const std::string text = testing::error_text(ErrorKind::internal, [&] { (void)save.finish(); });
    expect_contains(text, "the checkpoint of step 10 cannot be saved: rank 1: something else");
    ++told;
  });
  EXPECT_EQ(told, 2);
  EXPECT_EQ(disk.names(folder), std::vector<std::string>{});
}

TEST(BackgroundSave, ThatIsGivenUpLeavesTheOlderCheckpointAndAHiddenFolder) {
  CrashDisk disk;
  engines_on(testing::mlp_task(), 2, 7, [&](engine::Engine& engine) {
    const CheckpointStore store = store_on(disk);
    BackgroundSave save(store, engine);
    save.begin(state_at(10), {});
    (void)save.finish();
    save.begin(state_at(20), {});
    EXPECT_FALSE(save.advance().has_value());  // it writes
  });
  EXPECT_EQ(newest_checkpoint(folder, disk).path, std::string(folder) + "/step-10");
  EXPECT_EQ(disk.names(folder).size(), 2U);
  store_on(disk).clean_up();
  EXPECT_EQ(disk.names(folder), std::vector<std::string>{"step-10"});
}

}  // namespace
}  // namespace lockstep::run
