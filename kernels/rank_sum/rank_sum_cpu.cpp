#include "kernels/rank_sum/rank_sum.hpp"

#include "kernels/cpu/isa_namespace.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

// 4 KiB of each running sum stay in the first-level cache while every source streams past once.
constexpr std::size_t strip = 1024;
// Running sums at a time: one for each bit of the number of sources, and the one that comes.
constexpr std::size_t sums_at_a_time = 8;

/// to <- a + b. `to` may be either: the loop is element by element.
void add(const float* a, const float* b, float* to, std::size_t n) {
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) to[i] = a[i] + b[i];
}

void copy(const float* from, float* to, std::size_t n) {
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) to[i] = from[i];
}

/// Two ranks that write to both: the sum never leaves the registers.
void add_for_both(const float* a, const float* b, float* to, float* also, std::size_t n) {
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) {
    const float sum = a[i] + b[i];
    to[i] = sum;
    also[i] = sum;
  }
}

/// Elements [at, at + n) of all sources, as the tree; n is at most a strip.
void sum_strip(const RankSumArgs& args, std::size_t at, std::size_t n) {
  alignas(64) float sums[sums_at_a_time][strip];
  std::size_t depth = 0;
  for (std::size_t s = 0; s < args.source_count; ++s) {
    // A source of even number is never merged before the next one has come: both are read in one pass.
    if (s + 1 == args.source_count) {
      copy(args.sources[s] + at, sums[depth++], n);
      break;
    }
    add(args.sources[s] + at, args.sources[s + 1] + at, sums[depth++], n);
    ++s;
    for (std::size_t bits = s >> 1; (bits & 1U) != 0; bits >>= 1, --depth)
      add(sums[depth - 2], sums[depth - 1], sums[depth - 2], n);
  }
  for (; depth > 1; --depth) add(sums[depth - 2], sums[depth - 1], sums[depth - 2], n);
  for (std::size_t t = 0; t < args.target_count; ++t) copy(sums[0], args.targets[t] + at, n);
}

}  // namespace

void rank_sum(const RankSumArgs& args) {
  const float* const* const from = args.sources;
  if (args.source_count == 2 && args.target_count == 2)
    return add_for_both(from[0] + args.begin, from[1] + args.begin, args.targets[0] + args.begin,
                        args.targets[1] + args.begin, args.count);
  if (args.source_count == 2 && args.target_count == 1)
    return add(from[0] + args.begin, from[1] + args.begin, args.targets[0] + args.begin, args.count);
  const std::size_t end = args.begin + args.count;
  for (std::size_t at = args.begin; at < end; at += strip) sum_strip(args, at, end - at < strip ? end - at : strip);
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
