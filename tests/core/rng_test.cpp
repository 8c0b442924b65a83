#include "core/rng.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace lockstep {
namespace {

TEST(Philox, MatchesThePublishedTestVectors) {
  // Random123's known answers for philox4x32-10: counter and key of zeros, of ones, and of digits of pi.
  const Philox zeros = Philox::at(0, 0, 0);
  EXPECT_EQ(zeros.word[0], 0x6627e8d5U);
  EXPECT_EQ(zeros.word[1], 0xe169c58dU);
  EXPECT_EQ(zeros.word[2], 0xbc57ac4cU);
  EXPECT_EQ(zeros.word[3], 0x9b00dbd8U);
  const std::uint64_t all = ~std::uint64_t{0};
  const Philox ones = Philox::at(all, all, all);
  EXPECT_EQ(ones.word[0], 0x408f276dU);
  EXPECT_EQ(ones.word[1], 0x41c83b0eU);
  EXPECT_EQ(ones.word[2], 0xa20bc7c6U);
  EXPECT_EQ(ones.word[3], 0x6d5451fdU);
  const Philox pi = Philox::at(0x299f31d0a4093822ULL, 0x85a308d3243f6a88ULL, 0x0370734413198a2eULL);
  EXPECT_EQ(pi.word[0], 0xd16cfe09U);
  EXPECT_EQ(pi.word[1], 0x94fdccebU);
  EXPECT_EQ(pi.word[2], 0x5001e420U);
  EXPECT_EQ(pi.word[3], 0x24126ea1U);
}

TEST(RandomAt, StreamsLanesAndSeedsDoNotShareNumbers) {
  std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
  int drawn = 0;
  for (const std::uint64_t seed : {1, 2})
    for (const RngStream stream : {RngStream::init, RngStream::data_order, RngStream::dropout})
      for (const std::uint32_t lane : {0U, 1U, 7U})
        for (std::uint64_t index = 0; index < 100; ++index, ++drawn) {
          const Philox r = random_at(seed, stream, lane, index);
          seen.insert({r.word[0], r.word[1]});
        }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(drawn));
}

TEST(Uniform, StaysInsideTheOpenInterval) {
  EXPECT_GT(uniform_from(0), 0.0);
  EXPECT_LT(uniform_from(0xffffffffU), 1.0);
  EXPECT_EQ(uniform_from(0x80000000U), 0.5 + 0x1p-33);
}

TEST(Normal, HasMeanZeroVarianceOneAndRepeats) {
  double sum = 0, squares = 0, fourth = 0;
  const int count = 100000;
  for (int i = 0; i < count; ++i) {
    const double x = normal_at(3, RngStream::init, 5, static_cast<std::uint64_t>(i));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  // Five standard errors each: 1, sqrt(2) and sqrt(96) over sqrt(count).
  EXPECT_NEAR(sum / count, 0.0, 0.016);
  EXPECT_NEAR(squares / count, 1.0, 0.023);
  EXPECT_NEAR(fourth / count, 3.0, 0.16);
  EXPECT_EQ(normal_at(3, RngStream::init, 5, 42), normal_at(3, RngStream::init, 5, 42));
}

}  // namespace
}  // namespace lockstep
