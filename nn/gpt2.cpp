#include "nn/gpt2.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "core/text.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

struct Affine {
  ParamId weight;
  ParamId bias;
};

struct Block {
  int unit;
  Affine ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj;
};

Gpt2Options checked(Gpt2Options options) {
  if (options.n_layer < 1 || options.n_head < 1 || options.n_embd < 1 || options.block_size < 1 ||
      options.vocab_size < 1)
    fail(ErrorKind::config,
         "model: n_layer {}, n_head {}, n_embd {}, block_size {} and vocab_size {} must all be at least 1",
         options.n_layer, options.n_head, options.n_embd, options.block_size, options.vocab_size);
  if (options.n_embd % options.n_head != 0)
    fail(ErrorKind::config, "model: n_embd {} is not a multiple of n_head {}; each head takes n_embd / n_head columns",
         options.n_embd, options.n_head);
  if (options.padded_vocab == 0) options.padded_vocab = (options.vocab_size + 63) / 64 * 64;
  if (options.padded_vocab < options.vocab_size)
    fail(ErrorKind::config, "model: padded_vocab {} is less than vocab_size {}", options.padded_vocab,
         options.vocab_size);
  return options;
}

/// "124.4M", "0.03M", "1732 parameters".
std::string size_text(std::int64_t parameters) {
  if (parameters < 10'000) return counted(parameters, "parameter");
  return fmt::format("{:.{}f}M", static_cast<double>(parameters) / 1e6, parameters < 100'000 ? 2 : 1);
}

class Gpt2 final : public Model {
 public:
  explicit Gpt2(const Gpt2Options& options) : options_(checked(options)) {
    const std::int64_t width = options_.n_embd;
    const int first = add_unit();
    wte_ = add({.name = "transformer.wte.weight",
                .shape = {options_.vocab_size, width},
                .stored_rows = options_.padded_vocab,
                .unit = first,
                .init = Init::normal});
    wpe_ = add(
        {.name = "transformer.wpe.weight", .shape = {options_.block_size, width}, .unit = first, .init = Init::normal});
    const double residual_stddev = 0.02 / std::sqrt(2.0 * options_.n_layer);
    for (int i = 0; i < options_.n_layer; ++i) {
      const std::string prefix = fmt::format("transformer.h.{}.", i);
      const int unit = add_unit();
      // In the order of a braced list: left to right.
      blocks_.push_back({unit, add_norm(prefix + "ln_1", unit),
                         add_linear(prefix + "attn.c_attn", unit, width, 3 * width, 0.02),
                         add_linear(prefix + "attn.c_proj", unit, width, width, residual_stddev),
                         add_norm(prefix + "ln_2", unit), add_linear(prefix + "mlp.c_fc", unit, width, 4 * width, 0.02),
                         add_linear(prefix + "mlp.c_proj", unit, 4 * width, width, residual_stddev)});
    }
    last_unit_ = add_unit();
    ln_f_ = add_norm("transformer.ln_f", last_unit_);
  }

  [[nodiscard]] std::string describe() const override {
    return fmt::format("gpt2 {}: {}, {}, {} wide, context {}", size_text(parameter_count()),
                       counted(options_.n_layer, "layer"), counted(options_.n_head, "head"), options_.n_embd,
                       options_.block_size);
  }
  [[nodiscard]] int classes() const override { return options_.vocab_size; }

  [[nodiscard]] Tensor logits(Context& context, const Batch& batch) override {
    const Tensor y = hidden(context, batch);
    const Context::UnitScope scope(context, embedding_unit);
    return last_logits(context, y, head());
  }

 protected:
  void add_loss(Context& context, const Batch& batch) override {
    Tensor y = hidden(context, batch);
    const std::int64_t chunk = head_chunk_rows(y.shape().rows(), options_.padded_vocab, y.dtype());
    // The head is the embedding's matrix again, so its unit is acquired a second time.
    const Context::UnitScope scope(context, embedding_unit);
    head_loss(context, std::move(y), head(), {batch.targets, batch.grad_factor}, chunk);
  }

 private:
  static constexpr int embedding_unit = 0;

  [[nodiscard]] TiedHead head() const {
    return {.wte = wte_, .rows = options_.padded_vocab, .classes = options_.vocab_size};
  }
  /// What the head reads: [batch, length, n_embd].
  [[nodiscard]] Tensor hidden(Context& context, const Batch& batch) {
    if (batch.shape.length > options_.block_size)
      fail(ErrorKind::config, "sequences of {} tokens do not fit into model.block_size {}; make block_size larger",
           batch.shape.length, options_.block_size);
    Tensor x;       // the residual stream
    Tensor branch;  // what the last half-block adds to it; added by the next normalisation
    {
      const Context::UnitScope scope(context, embedding_unit);
      x = embedding(context, batch.tokens, batch.shape.batch, batch.shape.length, options_.n_embd,
                    {.wte = wte_,
                     .wpe = wpe_,
                     .vocabulary = options_.vocab_size,
                     .wte_rows = options_.padded_vocab,
                     .wpe_rows = options_.block_size});
      x = dropout(context, std::move(x), options_.embd_pdrop, 0, batch.first_sample);
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const auto block = [this, i, first_sample = batch.first_sample](Context& c, std::vector<Tensor> in) {
        return run_block(c, i, first_sample, std::move(in[0]), std::move(in[1]));
      };
      std::vector<Tensor> in = {std::move(x), std::move(branch)};
      std::vector<Tensor> out =
          options_.recompute == Recompute::none
              ? block(context, std::move(in))
              : context.recomputed(
                    std::move(in), block,
                    options_.recompute == Recompute::selective ? Context::Keep::attention : Context::Keep::nothing);
      x = std::move(out[0]);
      branch = std::move(out[1]);
    }
    const Context::UnitScope scope(context, last_unit_);
    return normed(context, x, branch, ln_f_);
  }

  /// (x, branch) -> (x, branch): of the residual stream, and of what the last half-block adds to it.
  std::vector<Tensor> run_block(Context& context, std::size_t index, const std::int64_t* first_sample, Tensor x,
                                Tensor branch) const {
    const Block& block = blocks_[index];
    auto branches = static_cast<std::uint32_t>(2 * index);  // their dropouts are numbered after the embedding's
    const auto thinned = [&](Tensor added) {
      return dropout(context, std::move(added), options_.resid_pdrop, ++branches, first_sample);
    };
    const Context::UnitScope scope(context, block.unit);
    Tensor y = normed(context, x, branch, block.ln_1);
    y = linear(context, std::move(y), 3 * options_.n_embd, block.c_attn.weight, block.c_attn.bias);
    y = attention(context, std::move(y), options_.n_head);
    branch = thinned(linear(context, std::move(y), options_.n_embd, block.attn_proj.weight, block.attn_proj.bias));
    y = normed(context, x, branch, block.ln_2);
    y = linear_gelu(context, std::move(y), 4 * options_.n_embd, block.c_fc.weight, block.c_fc.bias);
    branch = thinned(linear(context, std::move(y), options_.n_embd, block.mlp_proj.weight, block.mlp_proj.bias));
    return {std::move(x), std::move(branch)};
  }

  Affine add_norm(const std::string& name, int unit) {
    const std::int64_t width = options_.n_embd;
    const ParamId weight = add({.name = name + ".weight", .shape = {width}, .unit = unit, .init = Init::ones});
    const ParamId bias = add({.name = name + ".bias", .shape = {width}, .unit = unit, .init = Init::zeros});
    return {weight, bias};
  }
  Affine add_linear(const std::string& name, int unit, std::int64_t in, std::int64_t out, double stddev) {
    const ParamId weight =
        add({.name = name + ".weight", .shape = {in, out}, .unit = unit, .init = Init::normal, .stddev = stddev});
    const ParamId bias = add({.name = name + ".bias", .shape = {out}, .unit = unit, .init = Init::zeros});
    return {weight, bias};
  }
  /// x <- x + branch, branch is used up; returns its normalisation.
  static Tensor normed(Context& context, Tensor& x, Tensor& branch, const Affine& norm) {
    if (!branch.defined()) return layernorm(context, x, norm.weight, norm.bias);
    Normed result = residual_layernorm(context, x, branch, norm.weight, norm.bias);
    x = std::move(result.sum);
    branch = {};
    return std::move(result.y);
  }

  Gpt2Options options_;
  ParamId wte_ = 0;
  ParamId wpe_ = 0;
  std::vector<Block> blocks_;
  int last_unit_ = 0;
  Affine ln_f_ = {};
};

}  // namespace

std::unique_ptr<Model> make_gpt2(const Gpt2Options& options) { return std::make_unique<Gpt2>(options); }

}  // namespace lockstep::nn
