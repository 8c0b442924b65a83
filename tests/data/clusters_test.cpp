#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/error.hpp"
#include "data/dataset.hpp"

namespace lockstep::data {
namespace {

TEST(Clusters, AnEpochHoldsEverySampleOnce) {
  const auto clusters = make_clusters({.classes = 3, .features = 2, .samples = 100, .noise = 0.1});
  HostBatch batch;
  std::map<std::pair<float, float>, int> seen;

  clusters->train_batch(0, clusters->train_samples(), batch);
  for (std::size_t row = 0; row < 90; ++row) {
    ++seen[{batch.features[2 * row], batch.features[2 * row + 1]}];
  }

  EXPECT_EQ(clusters->train_samples(), 90);
  EXPECT_EQ(clusters->eval_samples(), 10);
  EXPECT_EQ(seen.size(), 90U);
  EXPECT_EQ(batch.target_count, 90.0);
  EXPECT_EQ(batch.length, 1);
  EXPECT_TRUE(batch.tokens.empty());
}

TEST(Clusters, PointsOfOneLabelLieAroundOneCentre) {
  const auto clusters = make_clusters({.classes = 4, .features = 8, .samples = 4000, .noise = 0.5});
  HostBatch batch;
  clusters->train_batch(0, clusters->train_samples(), batch);

  std::vector<double> sum(32, 0.0);
  std::vector<double> square(32, 0.0);
  std::vector<double> count(4, 0.0);
  for (std::size_t row = 0; row < batch.targets.size(); ++row) {
    const auto label = static_cast<std::size_t>(batch.targets[row]);
    count[label] += 1;
    for (std::size_t column = 0; column < 8; ++column) {
      const double x = batch.features[row * 8 + column];
      sum[label * 8 + column] += x;
      square[label * 8 + column] += x * x;
    }
  }

  // 900 points a label: the sample deviation is within 12% of the noise (five standard errors).
  for (std::size_t i = 0; i < 32; ++i) {
    const double mean = sum[i] / count[i / 8];
    EXPECT_EQ(count[i / 8], 900.0);
    EXPECT_NEAR(std::sqrt(square[i] / count[i / 8] - mean * mean), 0.5, 0.06);
  }
}

TEST(Clusters, IsAFunctionOfTheSeed) {
  const auto points = [](std::uint64_t seed) {
    HostBatch batch;
    make_clusters({.samples = 64, .seed = seed})->eval_batch(0, 6, batch);
    return batch.features;
  };

  EXPECT_EQ(points(1), points(1));
  EXPECT_NE(points(1), points(2));
}

TEST(Clusters, PastTheEndTheEvalBatchIsPadding) {
  const auto clusters = make_clusters({.classes = 2, .features = 3, .samples = 100});
  HostBatch batch;

  clusters->eval_batch(8, 4, batch);

  EXPECT_EQ(batch.target_count, 2.0);
  EXPECT_THAT(batch.targets, testing::ElementsAre(0, 1, -1, -1));
  EXPECT_EQ(batch.features.size(), 12U);
}

TEST(Clusters, HasNoText) {
  const auto clusters = make_clusters({});

  EXPECT_THROW((void)clusters->encode("x"), Error);
  EXPECT_THROW((void)clusters->decode({0}), Error);
}

TEST(Clusters, RefusesAnEmptySet) {
  EXPECT_THROW((void)make_clusters({.samples = 0}), Error);
  EXPECT_THROW((void)make_clusters({.validation_fraction = 1.0}), Error);
}

}  // namespace
}  // namespace lockstep::data
