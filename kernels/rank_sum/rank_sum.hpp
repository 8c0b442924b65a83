#pragma once

#include <cstddef>

namespace lockstep::kernels {

/// Elements [begin, begin + count) of every target <- the sum of the same elements of all sources, in fp32, added as
/// the tree T over sources[0], sources[1], ... (core/sum_tree.hpp): what ranks do that read each other's memory.
///
/// Shapes:  1 to rank_sum_sources sources, any number of targets, each with begin + count elements or more.
/// Overlap: a target may be one of the sources (same address) and must not overlap one otherwise.
/// Bytes:   4 count (sources + targets), each once; sums stay in the first-level cache.
/// Threads: the caller's alone. The result has the same bits however a range is cut.
struct RankSumArgs {
  const float* const* sources = nullptr;
  std::size_t source_count = 0;
  float* const* targets = nullptr;
  std::size_t target_count = 0;
  std::size_t begin = 0;
  std::size_t count = 0;
};

inline constexpr std::size_t rank_sum_sources = 64;

/// By this CPU's instruction set (core/isa.hpp). Not in the table: it is called by whoever moves buffers, without a
/// device at hand.
void rank_sum(const RankSumArgs& args);

}  // namespace lockstep::kernels
