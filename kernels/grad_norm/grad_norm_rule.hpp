#pragma once

// The order of additions in grad_norm: part of its definition, so that every implementation gives the same bits.

#include <cstddef>
#include <cstdint>

#include "core/host_device.hpp"
#include "kernels/grad_norm/grad_norm.hpp"

namespace lockstep {

/// Inside a chunk, element i is added to lane i % norm_lanes in ascending order; then lane k takes lane k + half for
/// half = norm_lanes / 2, ..., 1.
inline constexpr std::uint32_t norm_lanes = 256;

/// The sum of the chunks: the binary tree T(lo, hi) split at the largest power of two below hi - lo, so that aligned
/// parts of it can be computed by different ranks.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double sum_tree(const double* values, std::uint64_t count) {
  double partial[64];  // sums of complete subtrees, largest first; their sizes are the set bits of `done`
  int depth = 0;
  for (std::uint64_t done = 0; done < count; ++done) {
    double sum = values[done];
    for (std::uint64_t bits = done; (bits & 1U) != 0; bits >>= 1) sum = partial[--depth] + sum;
    partial[depth++] = sum;
  }
  double sum = depth > 0 ? partial[--depth] : 0.0;
  while (depth > 0) sum = partial[--depth] + sum;
  return sum;
}

/// The smallest index of a non-finite element, or -1, from each chunk's; completes the report.
LOCKSTEP_HOST_DEVICE static inline void finish_report(const GradNormArgs& args, std::uint64_t chunks) {
  StepReport& report = *args.report;
  report.norm2 = sum_tree(args.chunk_sums, chunks);
  report.first_bad = -1;
  for (std::uint64_t c = chunks; c-- > 0;)
    if (args.chunk_bad[c] >= 0) report.first_bad = args.chunk_bad[c];
  report.loss_sum = args.loss != nullptr ? args.loss->loss : 0.0;
  report.weight_sum = args.loss != nullptr ? args.loss->weight : 0.0;
  report.stop = args.inputs != nullptr ? args.inputs->stop : 0;
}

[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr std::uint64_t norm_chunks(std::uint64_t count) {
  return (count + norm_chunk - 1) / norm_chunk;
}

}  // namespace lockstep
