#pragma once

#include "nn/context.hpp"

/// The operations models are made of. Each checks its shapes, announces itself to the context, runs its kernels and
/// keeps a hand-written backward half that captures only what it needs.
///
/// Activations are [batch, length, width] or [batch, width], in the context's compute dtype. Tensors are taken by
/// value: move the last use in, and evaluation reuses the memory at once. Device pointers that are passed bare
/// (tokens, targets) must stay valid until the backward pass is done.
namespace lockstep::nn {

inline constexpr ParamId no_parameter = -1;

/// A constant activation from fp32 features [shape], rounded to the compute dtype.
[[nodiscard]] Tensor input(Context& context, const float* features, const Shape& shape);

/// What an embedding looks up: tokens below `vocabulary` in wte [wte_rows, width], positions in wpe [wpe_rows, width].
/// Rows are those in memory, padding included.
struct EmbeddingTables {
  ParamId wte = no_parameter;
  ParamId wpe = no_parameter;
  std::int64_t vocabulary = 0;
  std::int64_t wte_rows = 0;  ///< >= vocabulary
  std::int64_t wpe_rows = 0;  ///< >= length
};

/// wte[tokens] + wpe[position]: [batch, length] -> [batch, length, width].
[[nodiscard]] Tensor embedding(Context& context, const std::int32_t* tokens, std::int64_t batch, std::int64_t length,
                               std::int64_t width, const EmbeddingTables& tables);

/// x W + b: [..., in] -> [..., out], W [in, out], b [out] or no_parameter.
[[nodiscard]] Tensor linear(Context& context, Tensor x, std::int64_t out, ParamId weight, ParamId bias);

/// gelu(x W + b), the tanh form, with the bias fused into the activation both ways.
[[nodiscard]] Tensor linear_gelu(Context& context, Tensor x, std::int64_t out, ParamId weight, ParamId bias);

/// Layer normalisation over the last dimension; gamma and beta [width].
/// Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
[[nodiscard]] Tensor layernorm(Context& context, Tensor x, ParamId gamma, ParamId beta);

struct Normed {
  Tensor sum;  ///< x + branch
  Tensor y;    ///< layernorm of it
};
/// A residual addition and the next block's normalisation in one pass over memory. Backward needs no copy: the sum's
/// gradient goes to x and branch as one tensor.
[[nodiscard]] Normed residual_layernorm(Context& context, const Tensor& x, const Tensor& branch, ParamId gamma,
                                        ParamId beta);

/// Causal self-attention: qkv [batch, length, 3 width] -> [batch, length, width], width = heads x head size.
/// Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
[[nodiscard]] Tensor attention(Context& context, Tensor qkv, std::int64_t heads);

/// y wte^T: [..., width] -> [..., rows], with the embedding's weights as the classifier.
/// Source: Press & Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.
[[nodiscard]] Tensor tied_head(Context& context, Tensor y, std::int64_t rows, ParamId wte);

/// Adds the cross-entropy of logits [..., >= classes] to the context's LossSum. In training the logits become their
/// own gradient, multiplied by `*grad_factor` (on the device; unused otherwise) and the loss scale.
void cross_entropy(Context& context, Tensor logits, const std::int32_t* targets, std::int64_t classes,
                   const double* grad_factor);

}  // namespace lockstep::nn
