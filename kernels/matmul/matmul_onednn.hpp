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

/// The same, but with bits that do not depend on `threads`: c is cut into pieces of at most piece_rows x piece_columns,
/// counted from its first element, and each is a library call on one thread over the whole of k. (On several threads
/// the library may cut k too, where and into how many parts is its own choice.)
void onednn_sgemm_in_pieces(const Sgemm& args, int threads);

/// Small enough that a product of a narrow model keeps 8 threads busy, large enough that packing a piece's operands is
/// a few percent of its multiplications.
inline constexpr std::int64_t piece_rows = 128;
inline constexpr std::int64_t piece_columns = 512;

/// The whole of args with bf16 operands and fp32 accumulation in the library's bf16 kernels: AMX tiles or AVX512_BF16,
/// as current_bf16_products() says. False, and nothing done, if the CPU or the library has no fast one: then widen the
/// operands and call onednn_sgemm.
[[nodiscard]] bool onednn_matmul_bf16(const Exec& exec, const MatmulArgs& args);

/// Scratch memory of the calling thread, kept for its next call.
[[nodiscard]] float* matmul_scratch(std::int64_t floats);

}  // namespace lockstep::kernels
