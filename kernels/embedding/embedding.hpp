#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

struct EmbeddingForwardArgs {
  const std::int32_t* tokens = nullptr;  ///< [batch, length], each in [0, vocabulary)
  const void* wte = nullptr;             ///< [vocabulary, cols] of dtype
  const void* wpe = nullptr;             ///< [>= length, cols]; may be null
  void* y = nullptr;                     ///< [batch, length, cols]
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t cols = 0;
  std::int64_t vocabulary = 0;
  DType dtype = DType::f32;
};

struct EmbeddingBackwardArgs {
  const std::int32_t* tokens = nullptr;
  const void* dy = nullptr;  ///< [batch, length, cols] of dtype
  float* dwte = nullptr;     ///< [wte_rows, cols]
  float* dwpe = nullptr;     ///< [wpe_rows, cols]; may be null
  void* scratch = nullptr;   ///< kernels::scratch_bytes() of these arguments
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t cols = 0;
  std::int64_t vocabulary = 0;
  std::int64_t wte_rows = 0;  ///< >= vocabulary: rows in memory
  std::int64_t wpe_rows = 0;  ///< >= length if dwpe is given
  /// Add to the gradient instead of replacing it. Replaced are all rows: those that no position uses become zero.
  std::int32_t accumulate_dwte = 0;
  std::int32_t accumulate_dwpe = 0;
  DType dtype = DType::f32;
};

namespace kernels {
/// y[b, t] <- wte[tokens[b, t]] + wpe[t].
void embedding_forward(const Exec& exec, const EmbeddingForwardArgs& args);
/// dwte[v] <- (dwte[v] +) sum of dy over positions with token v, in ascending position: no atomics, so the same bits on
/// every run and thread count. dwpe[t] <- (dwpe[t] +) sum over the batch.
void embedding_backward(const Exec& exec, const EmbeddingBackwardArgs& args);
}  // namespace kernels

}  // namespace lockstep
