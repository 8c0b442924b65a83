#include "data/prefetch.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "core/error.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::data {
namespace {

/// Batches whose only feature is the position; counts how many were made.
class Counting final : public Dataset {
 public:
  std::string describe() const override { return "counting"; }
  std::uint64_t fingerprint() const override { return 1; }
  int classes() const override { return 1; }
  std::int64_t train_samples() const override { return 1; }
  std::int64_t eval_samples() const override { return 0; }
  void eval_batch(std::int64_t, std::int64_t, HostBatch&) const override {}
  void train_batch(std::int64_t position, std::int64_t count, HostBatch& out) const override {
    if (position == broken) fail(ErrorKind::data, "position {} is broken", position);
    out.batch = count;
    out.features.assign(1, static_cast<float>(position));
    made.fetch_add(1);
  }
  mutable std::atomic<int> made{0};
  std::int64_t broken = -1;
};

std::int64_t thrice(std::int64_t k) { return 3 * k; }

TEST(Prefetch, GivesTheBatchesOfTheDatasetInOrder) {
  const auto clusters = make_clusters({.samples = 200});
  for (const std::size_t depth : {1U, 2U, 5U}) {
    Prefetch ahead(*clusters, 4, 50, thrice, depth);
    HostBatch expected;
    for (std::int64_t k = 0; k < 50; ++k) {
      const HostBatch& got = ahead.next();
      clusters->train_batch(3 * k, 4, expected);
      ASSERT_EQ(got.features, expected.features) << k;
      ASSERT_EQ(got.targets, expected.targets) << k;
      ASSERT_EQ(got.position, expected.position) << k;
    }
    EXPECT_EQ(lockstep::testing::error_text(ErrorKind::internal, [&] { (void)ahead.next(); }).empty(), false);
  }
}

TEST(Prefetch, ABatchStaysUntilTheNextIsAskedFor) {
  const Counting dataset;
  Prefetch ahead(dataset, 1, 100, thrice);
  for (std::int64_t k = 0; k < 100; ++k) {
    const HostBatch& got = ahead.next();
    if (k % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_EQ(got.features[0], static_cast<float>(3 * k));
  }
}

TEST(Prefetch, NoMoreThanTheDepthIsMadeAhead) {
  const Counting dataset;
  Prefetch ahead(dataset, 1, 100, thrice, 3);
  for (int taken = 1; taken <= 5; ++taken) {
    (void)ahead.next();
    // All that may be made comes to be made, however slow the machine; and nothing more while somebody could still see.
    while (dataset.made.load() < taken + 3) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(dataset.made.load(), taken + 3);
  }
}

TEST(Prefetch, AnErrorComesWithTheBatchThatHasIt) {
  Counting dataset;
  dataset.broken = 6;
  Prefetch ahead(dataset, 1, 100, thrice);
  EXPECT_EQ(ahead.next().features[0], 0.0F);
  EXPECT_EQ(ahead.next().features[0], 3.0F);
  EXPECT_EQ(lockstep::testing::error_text(ErrorKind::data, [&] { (void)ahead.next(); }), "position 6 is broken");
}

TEST(Prefetch, MayBeLeftBeforeItsEnd) {
  const Counting dataset;
  for (int taken : {0, 1, 4}) {
    Prefetch ahead(dataset, 1, 1'000'000, thrice);
    for (int k = 0; k < taken; ++k) (void)ahead.next();
  }
  EXPECT_LT(dataset.made.load(), 50);
}

}  // namespace
}  // namespace lockstep::data
