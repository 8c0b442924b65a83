#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/grad_norm/grad_norm.hpp"

namespace lockstep {

/// All pointers are the device's.
struct DecideArgs {
  const StepInputs* inputs = nullptr;   ///< with rank 0's record, whose digest must be own_digest
  const StepReport* reports = nullptr;  ///< [world]
  std::int32_t world = 1;
  /// [leaves] losses by micro-batch, which are then added as the tree T over them; null: the reports' sums are added.
  const LossSum* leaf_losses = nullptr;
  std::int64_t leaves = 0;
  std::int32_t replicated = 1;  ///< every report's norm2 covers the whole gradient: rank 0's is used
  std::int32_t bias_correction = 1;
  std::int32_t groups = 1;
  double clip = 0;          ///< largest global norm, 0: no clipping
  double grad_divisor = 1;  ///< of the summed gradient, besides the loss scale (ranks or leaves)
  ScalerConfig scaler = {};
  StepState* state = nullptr;        ///< in and out
  GroupStep* group_steps = nullptr;  ///< [groups] out
  StepResult* result = nullptr;      ///< out, with its values[groups]
};

/// The one place where a step is decided: skip or apply, loss scale, clip factor, this step's lr and bias
/// corrections. One thread. After it the update kernels run; with state->skip or state->halt they change nothing.
///
///   norm      <- sqrt(sum norm2) / (scale grad_divisor)
///   factor    <- 1 / (scale grad_divisor max(1, (norm + 1e-6) / clip))
///   t         <- applied + 1;  correction_i <- 1 - beta_i^t  (double)
///   scale     <- loss scaler, after the factor was taken with the scale the loss was multiplied with
///
/// Source: the scaler's rule is DeepSpeed's DynamicLossScaler (docs/loss_scaling.md).
namespace kernels {
void decide(const Exec& exec, const DecideArgs& args);
}

/// A fresh state for a run.
[[nodiscard]] StepState initial_state(const ScalerConfig& config);

}  // namespace lockstep
