#pragma once

#include "kernels/matmul/matmul.hpp"

namespace lockstep::kernels {

/// c <- op(a) op(b) + beta c in fp32 on `threads` threads, dimensions and transposes as in MatmulArgs.
struct Sgemm {
  const float* a;
  const float* b;
  float* c;
  std::int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b;
  float beta;
};
void onednn_sgemm(const Sgemm& args, int threads);

/// The whole of args with bf16 operands and fp32 accumulation in the library's tile kernels. False, and nothing done,
/// if the CPU or the library has no fast one: then widen the operands and call onednn_sgemm.
[[nodiscard]] bool onednn_matmul_bf16(const Exec& exec, const MatmulArgs& args);

/// Scratch memory of the calling thread, kept for its next call.
[[nodiscard]] float* matmul_scratch(std::int64_t floats);

}  // namespace lockstep::kernels
