#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

struct GeluForwardArgs {
  const void* x = nullptr;     ///< [rows, cols] of dtype
  const void* bias = nullptr;  ///< [cols] of dtype, added before; may be null
  void* pre = nullptr;         ///< x + bias, kept for backward; may be x; null if bias is null
  void* y = nullptr;           ///< may be x if pre is not
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  DType dtype = DType::f32;
};

struct GeluBackwardArgs {
  const void* dy = nullptr;
  const void* pre = nullptr;  ///< the forward pass's argument
  void* dx = nullptr;         ///< may be dy
  float* dbias = nullptr;     ///< [cols]: column sums of dx; may be null
  void* scratch = nullptr;    ///< kernels::scratch_bytes() of these arguments if dbias is given
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t accumulate = 0;  ///< add to dbias instead of replacing it
  DType dtype = DType::f32;
};

namespace kernels {
/// y <- 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): GPT-2's form of Hendrycks & Gimpel, "GELUs", 2016.
void gelu_forward(const Exec& exec, const GeluForwardArgs& args);
void gelu_backward(const Exec& exec, const GeluBackwardArgs& args);
}  // namespace kernels

}  // namespace lockstep
