#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

struct BiasGradArgs {
  const void* dy = nullptr;  ///< [rows, cols] of dtype
  float* dbias = nullptr;    ///< [cols]
  void* scratch = nullptr;   ///< kernels::scratch_bytes() of these arguments
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t accumulate = 0;  ///< add to dbias instead of replacing it
  DType dtype = DType::f32;
};

namespace kernels {
/// dbias <- (dbias +) column sums of dy, in fp32 over fixed blocks of rows, so that the result does not depend on
/// threads.
void bias_grad(const Exec& exec, const BiasGradArgs& args);
}  // namespace kernels

}  // namespace lockstep
