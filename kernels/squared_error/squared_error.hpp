#pragma once

#include "kernels/cross_entropy/cross_entropy.hpp"

namespace lockstep {

struct SquaredErrorArgs {
  void* predictions = nullptr;            ///< [rows, cols] of dtype; with want_grad replaced by d(loss)/d(predictions)
  const float* values = nullptr;          ///< [rows, cols]: what they should be
  const std::int32_t* targets = nullptr;  ///< [rows]; -1: not counted
  float* losses = nullptr;                ///< [rows] out, scratch for the ordered sum
  LossSum* sum = nullptr;                 ///< added to, as by cross_entropy
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t want_grad = 1;
  const double* grad_factor = nullptr;  ///< as of cross_entropy
  const StepState* state = nullptr;     ///< as of cross_entropy
  DType dtype = DType::f32;
};

namespace kernels {
/// Mean squared error fused with its backward pass:
///   loss_r <- mean over c of (p_rc - v_rc)^2;   dp <- 2 (p - v) / cols * *grad_factor * scale
/// of counted rows; of others 0 and 0.
void squared_error(const Exec& exec, const SquaredErrorArgs& args);
}  // namespace kernels

}  // namespace lockstep
