#pragma once

// The order of additions in the gradient's norm: part of its definition, so that every implementation gives the same
// bits.

#include <cstddef>
#include <cstdint>

#include "core/host_device.hpp"
#include "kernels/grad_norm/grad_norm.hpp"
#include "kernels/tree_sum.hpp"

namespace lockstep {

/// Inside a leaf, element i is added to lane i % norm_lanes in ascending order; then lane k takes lane k + half for
/// half = norm_lanes / 2, ..., 1.
inline constexpr std::uint32_t norm_lanes = 256;

/// T(0, count) over the values.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double tree_sum(const double* values, std::uint64_t count) {
  return tree_sum(count, [values](std::uint64_t i) { return values[i]; });
}

/// Of two indices of bad elements, -1 where there is none, the smaller one.
[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr std::int64_t first_of(std::int64_t a, std::int64_t b) {
  if (a < 0 || b < 0) return a < 0 ? b : a;
  return a < b ? a : b;
}

LOCKSTEP_HOST_DEVICE static inline void fill_report(const GradNormArgs& args, double norm2, std::int64_t first_bad) {
  StepReport& report = *args.report;
  report.norm2 = norm2;
  report.first_bad = first_bad;
  report.loss_sum = args.loss != nullptr ? args.loss->loss : 0.0;
  report.weight_sum = args.loss != nullptr ? args.loss->weight : 0.0;
  report.stop = args.inputs != nullptr ? args.inputs->stop : 0;
}

/// All of grad_norm in one thread.
LOCKSTEP_HOST_DEVICE static inline void fill_report(const GradNormArgs& args) {
  std::int64_t first_bad = -1;
  for (std::uint32_t j = 0; j < args.bad_count; ++j) first_bad = first_of(first_bad, args.bad[j]);
  fill_report(args, tree_sum(args.sums, args.sum_count), first_bad);
}

}  // namespace lockstep
