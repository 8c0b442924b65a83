#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

/// c [m, n] (+)= op(a) [m, k] op(b) [k, n] (+ bias [n]); all row-major, leading dimensions are the stored width.
struct MatmulArgs {
  const void* a = nullptr;  ///< [m, k], or [k, m] if transpose_a
  const void* b = nullptr;  ///< [k, n], or [n, k] if transpose_b
  void* c = nullptr;
  const void* bias = nullptr;  ///< [n] of dtype; may be null
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t lda = 0;
  std::int64_t ldb = 0;
  std::int64_t ldc = 0;
  std::int32_t transpose_a = 0;
  std::int32_t transpose_b = 0;
  std::int32_t accumulate = 0;  ///< add to c instead of replacing it
  DType dtype = DType::f32;     ///< of a, b and bias
  DType c_dtype = DType::f32;   ///< dtype or f32
  /// Nonzero: b is a weight with this version, so a packed copy may be kept under (b, version, shape) until the
  /// version changes.
  std::uint64_t b_version = 0;
};

namespace kernels {
/// fp32 accumulation for every dtype. A free reduction inside the library: equal bits for equal thread counts only.
void matmul(const Exec& exec, const MatmulArgs& args);
}  // namespace kernels

}  // namespace lockstep
