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

/// What accuracy() is called in a plan: one that has it counts right answers.
inline constexpr const char* accuracy_op = "accuracy";

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

/// What a convolution's weights are: [kernel, kernel, in, out], kernel odd, and a bias [out].
struct ConvolutionLayer {
  std::int64_t out = 0;  ///< channels
  std::int64_t kernel = 3;
  std::int64_t pool = 2;  ///< side of the windows of which the maximum is taken; 1: no pooling
  ParamId weight = no_parameter;
  ParamId bias = no_parameter;
};
/// The maximum over windows of pool x pool pixels of relu(conv(x) + bias): [batch, height, width, in] -> [batch,
/// height / pool, width / pool, out], or flat, [batch, all of it]. Borders are padded with zeros; what is left of a
/// division is dropped. Windows' maxima are found again in backward.
/// Source: LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998.
[[nodiscard]] Tensor convolution(Context& context, Tensor x, const ConvolutionLayer& layer, bool flat);

/// In training: x with each element set to 0 with the probability, and the others scaled so that the expected value
/// stays; a function of the context's seed, the step, the sample's position in the training sequence, `operation` and
/// the element, made again in backward. In evaluation, and for probability 0: x, and no operation.
/// `operation` is a number of its own for each dropout of a model; `first_sample` is the batch's.
/// Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
[[nodiscard]] Tensor dropout(Context& context, Tensor x, double probability, std::uint32_t operation,
                             const std::int64_t* first_sample);

/// What the loss is taken against.
struct Targets {
  const std::int32_t* target = nullptr;  ///< [rows], on the device; -1: not counted
  /// In training: what the gradient of each counted row's loss is multiplied with, beside the loss scale. On the
  /// device.
  const double* grad_factor = nullptr;
};

/// The embedding's weights as the classifier: logits = x wte^T, without a bias.
/// Source: Press & Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.
struct TiedHead {
  ParamId wte = no_parameter;  ///< [rows, width]
  std::int64_t rows = 0;       ///< in memory, padding included
  std::int64_t classes = 0;    ///< real ones, <= rows
};

/// Adds the cross-entropy of x wte^T, x [..., width], to the context's LossSum, `chunk_rows` rows of x at a time: only
/// their logits are ever in memory. In training all of it happens in the backward half, where each chunk's logits
/// become their gradient and are used up at once for those of wte and x (which takes x's place if nobody else has it).
/// So no product is computed twice, and gradients of parameters are touched in backward passes only; the loss is there
/// after backward.
///
/// `chunk_rows`, a multiple of loss_rows_per_block, changes the order in which the gradient of wte is summed; where
/// a library's products round a row by the number of rows (oneDNN, fp32, AVX2), last bits of the others too.
void head_loss(Context& context, Tensor x, const TiedHead& head, const Targets& targets, std::int64_t chunk_rows);

/// For head_loss: so many rows that their logits take at most 64 MiB, in pieces of even size. From shapes alone.
[[nodiscard]] std::int64_t head_chunk_rows(std::int64_t rows, std::int64_t columns, DType dtype);

/// The logits of each sample's last position, for generation: x [batch, length, width] -> [batch, head.rows]. Not in
/// training.
[[nodiscard]] Tensor last_logits(Context& context, const Tensor& x, const TiedHead& head);

/// In evaluation: adds the number of rows of logits [..., >= classes] whose target is the likeliest class to the
/// context's `correct`. In training nothing, and no operation.
void accuracy(Context& context, const Tensor& logits, const Targets& targets, std::int64_t classes);

/// Adds the cross-entropy of logits [..., >= classes] to the context's LossSum. In training the logits become their own
/// gradient.
void cross_entropy(Context& context, Tensor logits, const Targets& targets, std::int64_t classes);

/// Adds the mean squared error of predictions [rows, columns] against `values` of the same shape to the context's
/// LossSum; rows whose target is -1 do not count. In training the predictions become their own gradient.
void squared_error(Context& context, Tensor predictions, const float* values, const Targets& targets);

}  // namespace lockstep::nn
