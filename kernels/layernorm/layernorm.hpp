#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

/// x, residual, sum, y: [rows, cols] of `dtype`; gamma, beta: [cols] of `dtype`; mean, rstd: [rows] fp32.
struct LayernormForwardArgs {
  const void* x = nullptr;
  const void* residual = nullptr;  ///< may be null: then sum is not written and x is normalised
  void* sum = nullptr;             ///< x + residual, rounded to dtype; what is normalised. May be x or residual.
  const void* gamma = nullptr;
  const void* beta = nullptr;
  void* y = nullptr;
  float* mean = nullptr;
  float* rstd = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float eps = 1e-5F;
  DType dtype = DType::f32;
};

struct LayernormBackwardArgs {
  const void* dy = nullptr;
  const void* x = nullptr;  ///< what was normalised
  const void* gamma = nullptr;
  const float* mean = nullptr;
  const float* rstd = nullptr;
  const void* dsum = nullptr;  ///< gradient that reaches the normalised sum from elsewhere; added. May be null.
  void* dx = nullptr;          ///< out; may be dsum or dy
  float* dgamma = nullptr;     ///< [cols]
  float* dbeta = nullptr;      ///< [cols]
  void* scratch = nullptr;     ///< kernels::scratch_bytes() of these arguments
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t accumulate_dgamma = 0;  ///< add to dgamma instead of replacing it
  std::int32_t accumulate_dbeta = 0;
  DType dtype = DType::f32;
};

namespace kernels {
/// y <- gamma (s - mean(s)) / sqrt(var(s) + eps) + beta with s = x (+ residual); one pass for residual and norm.
/// Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
void layernorm_forward(const Exec& exec, const LayernormForwardArgs& args);
/// dgamma and dbeta are sums over fixed blocks of rows, so that they do not depend on threads.
void layernorm_backward(const Exec& exec, const LayernormBackwardArgs& args);
}  // namespace kernels

}  // namespace lockstep
