#pragma once

#include <vector>

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
  /// >= 0: b is the weight with this number, and b_version changes whenever its values do. So a packed copy may be kept
  /// under number and shape until the version changes, wherever b lies by then: a store may move weights, and put
  /// others where they were. The numbers of one Exec::context are those of one set of parameters.
  std::int32_t b_param = -1;
  std::uint64_t b_version = 0;
};

namespace kernels {
/// fp32 accumulation for every dtype. A free reduction inside the library: equal bits for equal thread counts only.
void matmul(const Exec& exec, const MatmulArgs& args);

/// Bytes that exec's context will keep for packed copies of the weights among `products`, which may be listed several
/// times and need no buffers yet. 0 where nothing is packed: today all but
/// bf16 on CPUs that multiply it as such (core/isa.hpp).
[[nodiscard]] std::size_t packed_weight_bytes(const Exec& exec, const std::vector<MatmulArgs>& products);
}  // namespace kernels

}  // namespace lockstep
