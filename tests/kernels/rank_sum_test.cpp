#include "kernels/rank_sum/rank_sum.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.hpp"

namespace lockstep::kernels {

// One for each instruction set; those that this CPU has not are not called.
namespace cpu_baseline {
void rank_sum(const RankSumArgs& args);
}

namespace {

using Values = std::vector<float>;

float value(std::size_t source, std::size_t i) {
  const auto x = static_cast<std::uint32_t>(source * 2654435761U + i * 40503U + 12345U);
  return std::ldexp(static_cast<float>(x % 65537) - 32768.0F, static_cast<int>(x / 65537 % 20) - 10);
}

std::vector<Values> sources(std::size_t count, std::size_t elements) {
  std::vector<Values> all(count, Values(elements));
  for (std::size_t s = 0; s < count; ++s)
    for (std::size_t i = 0; i < elements; ++i) all[s][i] = value(s, i);
  return all;
}

/// T(lo, hi), as core/sum_tree.hpp defines it.
float tree(const std::vector<Values>& all, std::size_t lo, std::size_t hi, std::size_t i) {
  if (hi - lo == 1) return all[lo][i];
  std::size_t half = 1;
  while (2 * half < hi - lo) half *= 2;
  return tree(all, lo, lo + half, i) + tree(all, lo + half, hi, i);
}

void sum_in_place(std::vector<Values>& all, std::size_t targets, std::size_t begin, std::size_t count) {
  std::vector<const float*> from;
  std::vector<float*> to;
  for (Values& values : all) from.push_back(values.data());
  for (std::size_t t = 0; t < targets; ++t) to.push_back(all[t].data());
  rank_sum({.sources = from.data(),
            .source_count = from.size(),
            .targets = to.data(),
            .target_count = to.size(),
            .begin = begin,
            .count = count});
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

TEST(RankSum, IsTheTreeForEveryNumberOfSourcesAndTargetsInPlace) {
  for (std::size_t count = 1; count <= rank_sum_sources; ++count)
    for (const std::size_t targets : {std::size_t{1}, count}) {
      const std::vector<Values> before = sources(count, 2500);
      std::vector<Values> after = before;

      sum_in_place(after, targets, 3, 2490);

      for (std::size_t t = 0; t < targets; ++t)
        for (std::size_t i = 0; i < 2500; ++i) {
          const float want = i >= 3 && i < 2493 ? tree(before, 0, count, i) : before[t][i];
          ASSERT_TRUE(same_bits(after[t][i], want)) << count << " sources, target " << t << ", element " << i;
        }
    }
}

TEST(RankSum, DoesNotDependOnHowARangeIsCut) {
  for (const std::size_t elements : {0, 1, 31, 32, 33, 257, 4099}) {
    std::vector<Values> whole = sources(5, elements), cut = whole;

    sum_in_place(whole, 5, 0, elements);
    for (std::size_t at = 0; at < elements; at += 13)
      sum_in_place(cut, 5, at, std::min<std::size_t>(13, elements - at));

    EXPECT_EQ(whole, cut) << elements;
  }
}

TEST(RankSum, KeepsInfinitiesAndNaN) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  std::vector<Values> all = {{inf, inf, std::nanf(""), -0.0F}, {1.0F, -inf, 1.0F, -0.0F}};

  sum_in_place(all, 2, 0, 4);

  EXPECT_EQ(all[1][0], inf);
  EXPECT_TRUE(std::isnan(all[1][1]) && std::isnan(all[0][2]));
  EXPECT_TRUE(std::signbit(all[0][3]));
}

TEST(RankSum, TheInstructionSetsAgreeBitForBit) {
  for (const std::size_t count : {2, 3, 8}) {
    std::vector<Values> widest = sources(count, 3001), plain = widest;
    std::vector<const float*> from;
    std::vector<float*> to;
    for (Values& values : plain) {
      from.push_back(values.data());
      to.push_back(values.data());
    }

    sum_in_place(widest, count, 0, 3001);
    cpu_baseline::rank_sum({.sources = from.data(),
                            .source_count = count,
                            .targets = to.data(),
                            .target_count = count,
                            .begin = 0,
                            .count = 3001});

    EXPECT_EQ(widest, plain) << count;
  }
}

TEST(RankSum, RefusesNoneAndTooMany) {
  EXPECT_THROW(rank_sum({}), Error);
  std::vector<Values> all = sources(rank_sum_sources + 1, 1);
  EXPECT_THROW(sum_in_place(all, 1, 0, 1), Error);
}

}  // namespace
}  // namespace lockstep::kernels
