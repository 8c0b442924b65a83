// A checkpoint while the power fails, the disk fills up and bytes rot, on a disk in memory.
#include <gtest/gtest.h>

#include <cstdio>

#include "run/background_save.hpp"
#include "run/checkpoint_store.hpp"
#include "tests/run/trainee.hpp"
#include "tests/support/crash_disk.hpp"

namespace lockstep::run {
namespace {

using testing::CrashDisk;
using testing::Entries;
using testing::FaultyDisk;
using testing::Unsynced;

constexpr const char* folder = "/run/checkpoints";

/// Every element of a checkpoint, to the bit.
using Content = std::map<std::string, std::vector<float>>;

Content content_of(const std::string& path, const Manifest& manifest, files::FileSystem& disk) {
  Content content;
  visit_tensors(
      path, manifest,
      [&](const TensorEntry& tensor, std::int64_t begin, std::int64_t count, const float* values) {
        std::vector<float>& all = content[tensor.kind + "/" + tensor.name];
        all.resize(static_cast<std::size_t>(tensor.elements()));
        std::copy_n(values, count, all.begin() + begin);
      },
      disk);
  return content;
}

/// Who saves, and whether training stops for it.
struct Way {
  int ranks = 1;
  bool beside = false;
};

/// Saves as step `step` with parameters of `seed`; what became of it.
Saved save(files::FileSystem& disk, Way way, std::int64_t step, std::uint64_t seed) {
  Saved saved;
  engines_on(testing::mlp_task(), way.ranks, seed, [&](engine::Engine& engine) {
    RunState state = some_state();
    state.step.attempted = state.step.applied = step;
    const CheckpointStore store({.folder = folder, .keep_last = 1, .run_id = "feed"}, disk);
    Saved here;
    if (way.beside) {
      BackgroundSave background(store, engine);
      background.begin(state, {});
      // Training goes on: none of what was saved is in the engine any more.
      const std::vector<float> other(static_cast<std::size_t>(engine.layout().size()), -1.0F);
      for (const std::string& buffer : engine.buffer_names()) testing::write_buffer(engine, buffer, other);
      here = background.finish();
    } else {
      here = store.save(engine, state);
    }
    if (engine.comm().rank() == 0) saved = here;
  });
  return saved;
}

/// The newest checkpoint of a disk must be one of these.
struct Expected {
  std::map<std::string, std::vector<Content>> contents;
  void check(files::FileSystem& disk, const std::string& when) const {
    const Newest newest = newest_checkpoint(folder, disk);
    ASSERT_TRUE(newest.path.has_value()) << when;
    const std::string step = fmt::format("step-{}", newest.manifest.state.step.attempted);
    ASSERT_TRUE(contents.contains(step)) << when << ": " << *newest.path;
    const Content found = content_of(*newest.path, newest.manifest, disk);
    const auto& allowed = contents.at(step);
    EXPECT_NE(std::find(allowed.begin(), allowed.end(), found), allowed.end())
        << when << ": " << *newest.path << " is a mixture";
  }
};

class CrashPoints : public ::testing::TestWithParam<Way> {
 protected:
  /// A disk with step 10, and what it holds.
  std::unique_ptr<CrashDisk> with_old() {
    CrashDisk disk;
    EXPECT_EQ(save(disk, {.ranks = way_.ranks}, 10, 1).path, std::string(folder) + "/step-10");
    auto old = disk.after_crash(Unsynced::dropped, Entries::dropped);
    old_ = content_of(folder + std::string("/step-10"), read_manifest(folder + std::string("/step-10"), *old), *old);
    return old;
  }
  Content new_content(std::int64_t step) {
    CrashDisk disk;
    const std::string path = save(disk, {.ranks = way_.ranks}, step, 2).path;
    return content_of(path, read_manifest(path, disk), disk);
  }
  Way way_ = GetParam();
  Content old_;
};
INSTANTIATE_TEST_SUITE_P(Checkpoints, CrashPoints, ::testing::Values(Way{1, false}, Way{2, false}, Way{2, true}),
                         [](const auto& way) {
                           return fmt::format("{}Ranks{}", way.param.ranks, way.param.beside ? "BesideTraining" : "");
                         });

TEST_P(CrashPoints, AfterEveryOperationTheOldOrTheNewCheckpointIsThere) {
  // Saved anew under the same name, and as the next step with the old one removed.
  for (const std::int64_t step : {20, 10}) {
    const auto old = with_old();
    const Content fresh = new_content(step);
    Expected expected;
    expected.contents["step-10"].push_back(old_);
    expected.contents[fmt::format("step-{}", step)].push_back(fresh);
    int states = 0;
    for (int k = 0;; ++k) {
      const auto disk = old->after_crash(Unsynced::kept, Entries::kept);
      disk->cut_after(k);
      const Saved saved = save(*disk, way_, step, 2);
      const bool finished = saved.trouble.empty();
      for (const Unsynced bytes : {Unsynced::kept, Unsynced::dropped, Unsynced::torn, Unsynced::garbage})
        for (const Entries entries : {Entries::kept, Entries::dropped, Entries::mixed}) {
          const auto left = disk->after_crash(bytes, entries);
          const std::string when = fmt::format("step {}, cut after {} operations, bytes {}, entries {}", step, k,
                                               static_cast<int>(bytes), static_cast<int>(entries));
          expected.check(*left, when);
          // The next job sweeps, and finds the same.
          CheckpointStore({.folder = folder, .keep_last = 1, .run_id = "cafe"}, *left).clean_up();
          expected.check(*left, when + ", swept");
          for (const std::string& name : left->names(folder)) EXPECT_EQ(name.rfind("step-", 0), 0U) << when << name;
          ++states;
          if (::testing::Test::HasFailure()) return;
        }
      if (!finished) continue;
      EXPECT_EQ(saved.path, fmt::format("{}/step-{}", folder, step));
      EXPECT_GE(k, 15) << "operations of a save";
      EXPECT_GE(states, 12 * 15);
      std::printf("step %d: %d operations, %d states\n", static_cast<int>(step), k, states);
      break;
    }
  }
}

TEST_P(CrashPoints, ADiskThatIsFullOrFailsAtAnyCallLosesNothing) {
  const auto old = with_old();
  Expected expected;
  expected.contents["step-10"].push_back(old_);
  expected.contents["step-20"].push_back(new_content(20));
  for (const int error : {ENOSPC, EDQUOT, EIO}) {
    int given_up = 0, unflushed = 0;
    for (int n = 0;; ++n) {
      const auto disk = old->after_crash(Unsynced::kept, Entries::kept);
      FaultyDisk faulty(*disk, n, error);
      const Saved saved = save(faulty, way_, 20, 2);
      if (!faulty.met()) break;
      const std::string when = fmt::format("call {} fails with {}", n, error);
      given_up += saved.path.empty() ? 1 : 0;
      if (saved.path.empty()) {
        EXPECT_NE(saved.trouble.find("the checkpoint of step 20 cannot be saved: "), std::string::npos) << when;
        EXPECT_NE(saved.trouble.find(folder), std::string::npos) << saved.trouble;
      }
      if (saved.trouble.find("step-20 is in its place") != std::string::npos) {
        ++unflushed;
        EXPECT_EQ(disk->names(folder), (std::vector<std::string>{"step-10", "step-20"})) << "the older one stays";
      }
      expected.check(*disk, when);
      // The next interval.
      EXPECT_EQ(save(*disk, way_, 30, 2).trouble, "") << when;
      EXPECT_EQ(disk->names(folder), std::vector<std::string>{"step-30"}) << when;
      if (::testing::Test::HasFailure()) return;
    }
    std::printf("error %d: %d of its places gave the save up\n", error, given_up);
    EXPECT_GT(given_up, 20);
    EXPECT_EQ(unflushed, 1) << "the flush behind the rename";
  }
}

TEST_P(CrashPoints, CallsThatAreInterruptedOrDoAPartAreGoneOnWith) {
  const auto old = with_old();
  Expected expected;
  expected.contents["step-20"].push_back(new_content(20));
  for (const int error : {EINTR, 0}) {
    for (int n = 0;; ++n) {
      const auto disk = old->after_crash(Unsynced::kept, Entries::kept);
      FaultyDisk saving(*disk, n, error), loading(*disk, n, error);
      EXPECT_EQ(save(saving, way_, 20, 2).trouble, "") << n;
      expected.check(loading, fmt::format("call {}", n));
      if (!saving.met() && !loading.met()) break;
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(CheckpointFaults, AReadThatFailsIsAnErrorAndNotDamage) {
  CrashDisk disk;
  ASSERT_EQ(save(disk, {1}, 10, 1).trouble, "");
  int calls = 0;
  for (;; ++calls) {
    FaultyDisk faulty(disk, calls, EIO);
    try {
      const Newest newest = newest_checkpoint(folder, faulty);
      // The answer to close() tells a reader nothing.
      EXPECT_TRUE(newest.path.has_value());
      if (!faulty.met()) break;
    } catch (const Damaged& error) {
      FAIL() << error.what();
    } catch (const files::DiskTrouble& error) {
      expect_contains(error.what(), folder);
    }
  }
  EXPECT_GT(calls, 20);
}

TEST(CheckpointFaults, NoSpaceIsNoticedBeforeAnythingIsWritten) {
  CrashDisk disk;
  ASSERT_EQ(save(disk, {1}, 10, 1).trouble, "");
  disk.free = 1000;
  const int before = disk.operations();
  const Saved saved = save(disk, {2}, 20, 2);
  EXPECT_EQ(saved.path, "");
  expect_contains(saved.trouble, "/run/checkpoints: a checkpoint needs ");
  expect_contains(saved.trouble, ", and 1000 bytes are free there");
  EXPECT_EQ(disk.operations(), before);
}

TEST(CheckpointFaults, EveryChangedByteAndEveryLengthIsFoundAndTheOneBeforeIsUsed) {
  CrashDisk disk;
  ASSERT_EQ(save(disk, {1, true}, 20, 2).trouble, "");
  ASSERT_EQ(save(disk, {1}, 10, 1).trouble, "");
  const std::string newest = std::string(folder) + "/step-20";
  const std::string manifest = manifest_text(read_manifest(newest, disk));
  int bytes = 0;
  const auto used = [&](const std::string& when) {
    const Newest found = newest_checkpoint(folder, disk);
    // Between words of the manifest nothing is said.
    if (found.path == newest) {
      EXPECT_EQ(manifest_text(found.manifest), manifest) << when;
      return;
    }
    EXPECT_EQ(found.path, std::string(folder) + "/step-10") << when;
    ASSERT_EQ(found.passed_over.size(), 1U) << when;
    EXPECT_NE(found.passed_over[0].find(newest), std::string::npos) << found.passed_over[0];
  };
  for (const std::string& name : disk.names(newest)) {
    std::string& file = *disk.bytes_of(newest + "/" + name);
    const std::string whole = file;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      for (const std::size_t bit : {i % 8, (i + 4) % 8}) {
        file[i] = static_cast<char>(whole[i] ^ (1 << bit));
        used(fmt::format("{} byte {}, bit {}", name, i, bit));
      }
      file = whole.substr(0, i);
      used(fmt::format("{} cut at {}", name, i));
      file = whole;
      ++bytes;
      if (::testing::Test::HasFailure()) return;
    }
    file = whole + 'x';
    if (name != "manifest.json") used(name + " and a byte");
    file = whole;
  }
  std::printf("%d bytes, two bits of each changed, and each cut off at\n", bytes);
  EXPECT_GT(2 * bytes, 20000);
}

}  // namespace
}  // namespace lockstep::run
