#include "core/sum_tree.hpp"

#include <gtest/gtest.h>

#include <string>

namespace lockstep::sum_tree {
namespace {

/// The definition, written as text: "((0+1)+2)".
std::string tree(std::int64_t lo, std::int64_t hi) {
  if (hi - lo == 1) return std::to_string(lo);
  std::int64_t half = 1;
  while (2 * half < hi - lo) half *= 2;
  return "(" + tree(lo, lo + half) + "+" + tree(lo + half, hi) + ")";
}

std::string fold(std::vector<std::string> stack) {
  std::string sum = stack.back();
  for (stack.pop_back(); !stack.empty(); stack.pop_back()) sum = "(" + stack.back() + "+" + sum + ")";
  return sum;
}

void merge(std::vector<std::string>& stack, int times) {
  for (; times > 0; --times) {
    const std::string right = stack.back();
    stack.pop_back();
    stack.back() = "(" + stack.back() + "+" + right + ")";
  }
}

TEST(SumTree, TheStackBuildsTheDefinitionForEveryNumberOfTerms) {
  for (std::int64_t n = 1; n <= 70; ++n) {
    std::vector<std::string> stack;

    for (std::int64_t i = 0; i < n; ++i) {
      stack.push_back(std::to_string(i));
      merge(stack, merges_after(static_cast<std::uint64_t>(i)));
    }

    EXPECT_EQ(fold(stack), tree(0, n));
  }
}

TEST(SumTree, BlocksOfAnyRanksPutTogetherAreTheSameTree) {
  for (std::int64_t n = 1; n <= 40; ++n)
    for (std::int64_t ranks = 1; ranks <= n && ranks <= 9; ++ranks) {
      std::vector<Block> all;
      std::vector<std::string> terms;
      for (std::int64_t r = 0; r < ranks; ++r)
        for (const Block& block : blocks(n * r / ranks, n * (r + 1) / ranks)) {
          all.push_back(block);
          terms.push_back(tree(block.begin, block.end));
        }
      const std::vector<std::uint8_t> merges = merges_of(all);
      std::vector<std::string> stack;

      for (std::size_t i = 0; i < terms.size(); ++i) {
        stack.push_back(terms[i]);
        merge(stack, merges[i]);
      }

      EXPECT_EQ(fold(stack), tree(0, n)) << n << " terms of " << ranks << " ranks";
    }
}

TEST(SumTree, BlocksAreAlignedAndCoverTheRange) {
  EXPECT_EQ(blocks(3, 9), (std::vector<Block>{{3, 4}, {4, 8}, {8, 9}}));
  EXPECT_EQ(blocks(0, 8), (std::vector<Block>{{0, 8}}));
  EXPECT_TRUE(blocks(5, 5).empty());
}

}  // namespace
}  // namespace lockstep::sum_tree
