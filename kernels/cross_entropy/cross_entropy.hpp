#pragma once

#include "core/host_device.hpp"
#include "kernels/exec.hpp"
#include "kernels/grad_norm/grad_norm.hpp"

namespace lockstep {

struct CrossEntropyArgs {
  void* logits = nullptr;                 ///< [rows, stride] of dtype; with want_grad replaced by d(loss)/d(logits)
  const std::int32_t* targets = nullptr;  ///< [rows]; -1: not counted
  float* losses = nullptr;                ///< [rows] out, scratch for the ordered sum
  LossSum* sum = nullptr;                 ///< added to: losses in row order by fixed blocks, number of counted targets
  std::int64_t rows = 0;
  std::int64_t first_row = 0;  ///< of the batch, where these are a part of its rows: for messages
  std::int64_t classes = 0;    ///< real ones; columns beyond are padding: masked, gradient 0
  std::int64_t stride = 0;     ///< elements between rows, >= classes
  std::int32_t want_grad = 1;
  const double* grad_factor = nullptr;  ///< with want_grad: 1 / (counted targets of the micro-batch * micro-batches)
  const StepState* state = nullptr;     ///< its loss scale multiplies the gradient; null: 1
  DType dtype = DType::f32;
};

/// What the gradient of a row's loss is multiplied with.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double loss_factor(const CrossEntropyArgs& args) {
  if (args.want_grad == 0) return 0;
  return *args.grad_factor * (args.state != nullptr ? args.state->scale : 1.0);
}

/// Rows whose losses are summed first, in double and in row order; the sums of blocks are added in order.
inline constexpr std::int64_t loss_rows_per_block = 64;

namespace kernels {
/// Softmax cross-entropy fused with its backward pass: no probabilities are stored.
///   loss_r <- log(sum exp(logits_r)) - logits_r[target];   dlogits <- (softmax - onehot) * *grad_factor * scale
void cross_entropy(const Exec& exec, const CrossEntropyArgs& args);
}  // namespace kernels

}  // namespace lockstep
