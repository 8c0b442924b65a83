#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

inline constexpr std::uint64_t norm_chunk =
    65536;  ///< elements; fixed, so the sum does not depend on threads or buckets

/// Loss of the micro-batches since the step began; cross_entropy adds to it.
struct LossSum {
  double loss = 0;
  double weight = 0;
};

struct GradNormArgs {
  GradSources grad = {};
  std::uint64_t begin = 0;  ///< first flat element, a multiple of norm_chunk
  std::uint64_t count = 0;
  double* chunk_sums = nullptr;        ///< scratch [chunks], chunks = ceil(count / norm_chunk)
  std::int64_t* chunk_bad = nullptr;   ///< scratch [chunks]
  const LossSum* loss = nullptr;       ///< copied into the report
  const StepInputs* inputs = nullptr;  ///< its stop request is copied into the report; null: none
  StepReport* report = nullptr;        ///< out
};

namespace kernels {
/// Norm and overflow in one pass: report->norm2 <- sum of squares (double, fixed tree over chunks of norm_chunk
/// elements, each a fixed tree inside), report->first_bad <- smallest flat index whose value is not finite, or -1.
/// Completes the report with the loss and the stop request.
void grad_norm(const Exec& exec, const GradNormArgs& args);
}  // namespace kernels

}  // namespace lockstep
