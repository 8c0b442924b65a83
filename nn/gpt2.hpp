#pragma once

#include <cstdint>

#include "nn/model.hpp"

namespace lockstep::nn {

/// What backward computes a second time in place of keeping it.
enum class Recompute : std::uint8_t {
  none,
  block,      ///< everything inside the blocks: their inputs are kept
  selective,  ///< the same but for attention, whose outputs are kept
};

struct Gpt2Options {
  int n_layer = 12;
  int n_head = 12;
  int n_embd = 768;
  int block_size = 1024;  ///< longest sequence
  int vocab_size = 50257;
  double embd_pdrop = 0;   ///< dropout of the sum of the embeddings
  double resid_pdrop = 0;  ///< of what each half of a block adds to the residual stream
  Recompute recompute = Recompute::none;
  int padded_vocab = 0;  ///< rows of wte in memory; 0: vocab_size rounded up to a multiple of 64
};

/// GPT-2 with Hugging Face's parameter names and layout ([in, out] projections, fused c_attn, tied wte).
/// Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. Residual projections start with
/// stddev 0.02 / sqrt(2 n_layer).
[[nodiscard]] std::unique_ptr<Model> make_gpt2(const Gpt2Options& options);

}  // namespace lockstep::nn
