#pragma once

#include <cstdint>
#include <string>

namespace lockstep::job {

/// What config.json of a Hugging Face GPT-2 says about its shape.
struct HfGpt2 {
  std::int64_t n_layer = 0;
  std::int64_t n_head = 0;
  std::int64_t n_embd = 0;
  std::int64_t n_positions = 0;
  std::int64_t vocab_size = 0;
};

/// Reads DIR/config.json. ErrorKind::config if it is missing, is no GPT-2's, or asks for something that model.type gpt2
/// does not compute (another activation, an output layer of its own, ...); the message names the key.
[[nodiscard]] HfGpt2 read_hf_gpt2(const std::string& folder);

}  // namespace lockstep::job
