#include "data/permutation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.hpp"

namespace lockstep::data {
namespace {

std::vector<std::int64_t> order_of(std::int64_t n, std::uint64_t seed, std::uint32_t epoch) {
  const Permutation permutation(n, seed, epoch);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    order[static_cast<std::size_t>(i)] = permutation[i];
  }
  return order;
}

bool holds_each_value_once(std::vector<std::int64_t> order) {
  std::sort(order.begin(), order.end());
  std::vector<std::int64_t> identity(order.size());
  std::iota(identity.begin(), identity.end(), 0);
  return order == identity;
}

TEST(Permutation, IsABijectionForEverySmallSize) {
  for (std::int64_t n = 1; n <= 300; ++n) {
    EXPECT_TRUE(holds_each_value_once(order_of(n, 7, 0))) << "n = " << n;
    EXPECT_TRUE(holds_each_value_once(order_of(n, 7, 1))) << "n = " << n << ", epoch 1";
  }
}

TEST(Permutation, IsABijectionForALargePrime) { EXPECT_TRUE(holds_each_value_once(order_of(100'003, 1, 3))); }

TEST(Permutation, DependsOnSeedAndEpochAndOnNothingElse) {
  const auto order = order_of(1000, 1, 0);

  EXPECT_EQ(order, order_of(1000, 1, 0));
  EXPECT_NE(order, order_of(1000, 2, 0));
  EXPECT_NE(order, order_of(1000, 1, 1));
}

TEST(Permutation, KeepsAboutOneElementInPlace) {
  // A random order has one fixed point on average, with variance one: over 400 orders the mean is within 0.25 of one
  // (five standard deviations).
  std::int64_t fixed = 0;
  for (std::uint32_t epoch = 0; epoch < 400; ++epoch) {
    const auto order = order_of(150, 11, epoch);
    for (std::size_t i = 0; i < order.size(); ++i) {
      fixed += order[i] == static_cast<std::int64_t>(i) ? 1 : 0;
    }
  }

  // A permutation has one fixed point on average, with variance 1: 0.25 is five standard deviations of the mean of 400.
  EXPECT_NEAR(static_cast<double>(fixed) / 400.0, 1.0, 0.25);
}

TEST(Permutation, TakesEveryOrderOfAFewElementsEquallyOften) {
  // 24 orders of 4 elements, 4800 draws: chi-square with 23 degrees of freedom exceeds 58 with probability 7e-5.
  constexpr int draws = 4800;
  std::vector<int> count(256, 0);
  for (std::uint32_t epoch = 0; epoch < draws; ++epoch) {
    const auto order = order_of(4, 5, epoch);
    ++count[static_cast<std::size_t>(order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3])];
  }

  double chi_square = 0;
  int kinds = 0;
  for (const int observed : count) {
    if (observed > 0) {
      ++kinds;
      chi_square += std::pow(observed - draws / 24.0, 2) / (draws / 24.0);
    }
  }
  EXPECT_EQ(kinds, 24);
  EXPECT_LT(chi_square, 58.0);
}

TEST(Permutation, WorksFarBeyondMemory) {
  constexpr std::int64_t n = (std::int64_t{1} << 40) + 17;
  const Permutation permutation(n, 1, 0);

  for (const std::int64_t i : {std::int64_t{0}, n / 2, n - 1}) {
    EXPECT_GE(permutation[i], 0);
    EXPECT_LT(permutation[i], n);
  }
  EXPECT_NE(permutation[0], permutation[1]);
}

TEST(Permutation, RefusesWhatIsOutside) {
  const Permutation permutation(10, 1, 0);

  EXPECT_THROW((void)permutation[10], Error);
  EXPECT_THROW((void)permutation[-1], Error);
  EXPECT_THROW(Permutation(0, 1, 0), Error);
}

TEST(EpochOffset, ReachesEveryValueBelowTheBound) {
  std::vector<int> seen(16, 0);
  for (std::uint32_t epoch = 0; epoch < 400; ++epoch) {
    ++seen[static_cast<std::size_t>(epoch_offset(16, 1, epoch))];
  }

  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), 0);
  EXPECT_EQ(epoch_offset(1, 1, 0), 0);
  EXPECT_THROW((void)epoch_offset(0, 1, 0), Error);
}

}  // namespace
}  // namespace lockstep::data
