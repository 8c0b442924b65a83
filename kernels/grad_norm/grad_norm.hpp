#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// Loss of the micro-batches since the step began; cross_entropy adds to it.
struct LossSum {
  double loss = 0;
  double weight = 0;
};

/// All pointers are the device's.
struct GradLeafSumsArgs {
  GradSources grad = {};
  const NormLeaf* leaves = nullptr;  ///< any of the flat space's, each at most once
  std::uint32_t leaf_count = 0;
  double* sums = nullptr;       ///< out: sums[leaf.index] for each of them, the others are left alone
  std::int64_t* bad = nullptr;  ///< out [leaf_count], in the order of `leaves`
};

inline constexpr std::uint32_t max_norm_leaves = 1U << 23;  ///< 137 billion elements

struct GradNormArgs {
  const double* sums = nullptr;  ///< [sum_count], of all leaves of the flat space; at most max_norm_leaves
  std::uint32_t sum_count = 0;
  const std::int64_t* bad = nullptr;  ///< [bad_count], of this rank's leaves
  std::uint32_t bad_count = 0;
  const LossSum* loss = nullptr;       ///< copied into the report; null: zeros
  const StepInputs* inputs = nullptr;  ///< its stop request is copied into the report; null: none
  StepReport* report = nullptr;        ///< out
};

namespace kernels {
/// Norm and overflow in one pass over the gradient, leaf by leaf: sums[leaf.index] <- sum of squares of the leaf's
/// elements, in double by a fixed tree; bad[j] <- smallest flat index in leaf j whose value is not finite, or -1.
/// Ranks that hold shards do this for their own leaves and gather the sums before grad_norm.
void grad_leaf_sums(const Exec& exec, const GradLeafSumsArgs& args);

/// report->norm2 <- T(0, sum_count) over the leaves' sums (core/sum_tree.hpp), whose bits depend on the leaves alone;
/// report->first_bad <- the smallest of `bad` that is not -1, or -1. Completes the report with the loss and the stop
/// request.
void grad_norm(const Exec& exec, const GradNormArgs& args);
}  // namespace kernels

}  // namespace lockstep
