#pragma once

#include <bit>
#include <cstdint>
#include <vector>

/// The one order in which Lockstep adds what several ranks, micro-batches or leaves of a norm contribute.
///
/// T(lo, hi) is term lo if hi - lo = 1, else T(lo, mid) + T(mid, hi) with mid - lo the largest power of two below
/// hi - lo. Every aligned block of 2^k terms is a subtree, so it can be summed by whoever holds it, and the result does
/// not depend on who that was. With a stack it takes one pass: after term i is pushed, the two topmost sums are merged
/// as often as i has trailing one bits; at the end the stack is folded from its top.
///
/// Source of the order: the pairwise summation of Higham, "The Accuracy of Floating Point Summation", 1993, whose error
/// grows with log2 of the number of terms.
namespace lockstep::sum_tree {

/// Sums on the stack at most, for any number of terms.
inline constexpr int max_depth = 64;

/// How often the two topmost sums are merged after term `index` (counted from 0) was pushed.
[[nodiscard]] constexpr int merges_after(std::uint64_t index) { return std::countr_one(index); }

/// Terms [begin, end): a power of two of them, aligned to their number.
struct Block {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t size() const { return end - begin; }
  bool operator==(const Block&) const = default;
};

/// Terms that `part` of `parts` has when `terms` are shared out in consecutive runs, as evenly as they go.
[[nodiscard]] constexpr Block share(std::int64_t terms, int part, int parts) {
  // Without the product of terms and part, which may not fit.
  const std::int64_t each = terms / parts, left = terms % parts;
  return {each * part + left * part / parts, each * (part + 1) + left * (part + 1) / parts};
}

/// The largest subtrees that [begin, end) consists of, in order: what the stack holds after these terms if nothing
/// before `begin` is at hand.
[[nodiscard]] inline std::vector<Block> blocks(std::int64_t begin, std::int64_t end) {
  std::vector<Block> result;
  while (begin < end) {
    std::int64_t size = 1;
    while (begin % (2 * size) == 0 && begin + 2 * size <= end) size *= 2;
    result.push_back({begin, begin + size});
    begin += size;
  }
  return result;
}

/// For sums of consecutive blocks that are pushed one by one: how often to merge after each.
[[nodiscard]] inline std::vector<std::uint8_t> merges_of(const std::vector<Block>& pushed) {
  std::vector<std::uint8_t> merges;
  std::vector<Block> stack;
  for (Block block : pushed) {
    std::uint8_t count = 0;
    while (!stack.empty() && stack.back().size() == block.size() && stack.back().begin % (2 * block.size()) == 0) {
      block.begin = stack.back().begin;
      stack.pop_back();
      ++count;
    }
    stack.push_back(block);
    merges.push_back(count);
  }
  return merges;
}

}  // namespace lockstep::sum_tree
