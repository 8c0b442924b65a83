// A checkpoint is saved and loaded while memory runs out: every allocation in turn is the one that fails.
#include <gtest/gtest.h>

#include <cstdio>

#include "run/background_save.hpp"
#include "run/checkpoint_store.hpp"
#include "tests/allocation/failing_new.hpp"
#include "tests/run/trainee.hpp"
#include "tests/support/crash_disk.hpp"

namespace lockstep::run {
namespace {

using testing::CrashDisk;
using testing::Entries;
using testing::Unsynced;

constexpr const char* folder = "/run/checkpoints";

/// Calls `work` with the n-th allocation failing; says how it ended: "" well, else what was thrown.
template <class Work>
std::string with_failure(std::int64_t n, const Work& work) {
  std::exception_ptr thrown;
  testing::fail_allocation(n);
  try {
    work();
  } catch (...) {
    thrown = std::current_exception();
  }
  testing::fail_no_allocation();
  if (!thrown) return {};
  const Failure failure = failure_of(thrown);
  EXPECT_EQ(failure.kind, ErrorKind::environment) << "allocation " << n << ": " << failure.text;
  expect_contains(failure.text, "memory is exhausted");
  return failure.text;
}

RunState state_at(std::int64_t step) {
  RunState state = some_state();
  state.step.attempted = state.step.applied = step;
  return state;
}

CheckpointStore store_on(files::FileSystem& disk) {
  return CheckpointStore({.folder = folder, .keep_last = 1, .run_id = "feed"}, disk);
}

std::vector<float> masters_of(engine::Engine& engine) { return testing::read_buffer(engine, "master"); }

/// A disk with step 10 and the parameters in it.
struct Old {
  Old() {
    Trainee trainee(testing::mlp_task(), 1);
    EXPECT_EQ(store_on(disk).save(*trainee.engine, state_at(10)).trouble, "");
    masters = masters_of(*trainee.engine);
  }
  CrashDisk disk;
  std::vector<float> masters;
};

class Allocations : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Saves, Allocations, ::testing::Bool(),
                         [](const auto& beside) { return beside.param ? "BesideTraining" : "WhileTrainingStops"; });

TEST_P(Allocations, ThatFailInASaveLeaveTheOldOrTheNewCheckpointAndTheNextSaveIsWhole) {
  const bool beside = GetParam();
  Old old;
  Trainee trainee(testing::mlp_task(), 2), other(testing::mlp_task(), 3);
  const std::vector<float> fresh = masters_of(*trainee.engine);
  std::int64_t n = 0, failed = 0;
  for (;; ++n) {
    const auto disk = old.disk.after_crash(Unsynced::kept, Entries::kept);
    const CheckpointStore store = store_on(*disk);
    std::optional<BackgroundSave> background;
    if (beside) background.emplace(store, *trainee.engine);
    std::string trouble;
    const std::string thrown = with_failure(n, [&] {
      if (!beside) {
        trouble = store.save(*trainee.engine, state_at(20)).trouble;
        return;
      }
      background->begin(state_at(20), {});
      trouble = background->finish().trouble;
    });
    background.reset();
    EXPECT_EQ(trouble, "") << "memory is not the disk's trouble";
    failed += thrown.empty() ? 0 : 1;

    const Newest newest = newest_checkpoint(folder, *disk);
    ASSERT_TRUE(newest.path.has_value()) << n;
    ASSERT_TRUE(newest.passed_over.empty()) << n << ": " << newest.passed_over.front();
    load_checkpoint(*newest.path, newest.manifest, *other.engine, *disk);
    const bool is_new = newest.manifest.state.step.attempted == 20;
    EXPECT_EQ(masters_of(*other.engine), is_new ? fresh : old.masters) << n;
    EXPECT_TRUE(is_new || !thrown.empty()) << n << ": given up without a word";
    if (!testing::allocation_has_failed()) break;
    EXPECT_EQ(store.save(*trainee.engine, state_at(30)).trouble, "") << n;
    EXPECT_EQ(disk->names(folder), std::vector<std::string>{"step-30"}) << n;
    if (::testing::Test::HasFailure()) return;
  }
  std::printf("%ld allocations, %ld of them ended the save\n", static_cast<long>(n), static_cast<long>(failed));
  EXPECT_GT(failed, 100);
}

TEST(Allocation, ThatFailsWhileACheckpointIsLookedForIsNotTakenForDamage) {
  CrashDisk disk;
  Trainee trainee(testing::mlp_task(), 2);
  ASSERT_EQ(store_on(disk).save(*trainee.engine, state_at(10)).trouble, "");
  const CheckpointStore both({.folder = folder, .run_id = "feed"}, disk);
  ASSERT_EQ(both.save(*trainee.engine, state_at(20)).trouble, "");
  Trainee other(testing::mlp_task(), 3);
  const std::vector<float> fresh = masters_of(*trainee.engine);
  std::int64_t n = 0, failed = 0;
  for (;; ++n) {
    std::optional<Newest> newest;
    const std::string thrown = with_failure(n, [&] {
      newest.emplace(newest_checkpoint(folder, disk));
      load_checkpoint(*newest->path, newest->manifest, *other.engine, disk);
    });
    failed += thrown.empty() ? 0 : 1;
    if (newest) {
      EXPECT_EQ(newest->path, std::string(folder) + "/step-20") << n << ": the older one is not to be gone back to";
    }
    if (thrown.empty()) {
      EXPECT_EQ(masters_of(*other.engine), fresh) << n;
    }
    if (!testing::allocation_has_failed()) break;
    if (::testing::Test::HasFailure()) return;
  }
  std::printf("%ld allocations, %ld of them ended the load\n", static_cast<long>(n), static_cast<long>(failed));
  EXPECT_GT(failed, 100);
}

}  // namespace
}  // namespace lockstep::run
