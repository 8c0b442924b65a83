#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

/// Causal self-attention over packed projections. qkv: [batch, length, 3, heads, head_size] of dtype;
/// y: [batch, length, heads, head_size]; lse: [batch, heads, length] fp32, log of the softmax denominator.
struct AttentionForwardArgs {
  const void* qkv = nullptr;
  void* y = nullptr;
  float* lse = nullptr;
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t heads = 0;
  std::int64_t head_size = 0;
  DType dtype = DType::f32;
};

struct AttentionBackwardArgs {
  const void* dy = nullptr;
  const void* qkv = nullptr;
  const void* y = nullptr;
  const float* lse = nullptr;
  void* dqkv = nullptr;     ///< out, like qkv; must not overlap it
  void* scratch = nullptr;  ///< kernels::scratch_bytes() of these arguments
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t heads = 0;
  std::int64_t head_size = 0;
  DType dtype = DType::f32;
};

namespace kernels {
/// y <- softmax(q k^T / sqrt(head_size), causal) v, in tiles: the length x length scores are never stored whole.
/// Source: Dao, Fu, Ermon, Rudra, Re, "FlashAttention", NeurIPS 2022.
void attention_forward(const Exec& exec, const AttentionForwardArgs& args);
void attention_backward(const Exec& exec, const AttentionBackwardArgs& args);
}  // namespace kernels

}  // namespace lockstep
