#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

struct BiasGradArgs {
  const void* dy = nullptr;  ///< [rows, cols] of dtype
  float* dbias = nullptr;    ///< [cols]
  void* scratch = nullptr;   ///< bias_grad_scratch(rows, cols) bytes
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t accumulate = 0;  ///< add to dbias instead of replacing it
  DType dtype = DType::f32;
};

/// Rows of one partial sum; fixed, so that the result does not depend on threads.
inline constexpr std::int64_t bias_grad_rows_per_block = 32;

/// Bytes for the partial column sums of fixed blocks of rows.
[[nodiscard]] std::size_t bias_grad_scratch(std::int64_t rows, std::int64_t cols);

namespace kernels {
/// dbias <- (dbias +) column sums of dy, in fp32 over fixed blocks of rows.
void bias_grad(const Exec& exec, const BiasGradArgs& args);
}  // namespace kernels

}  // namespace lockstep
