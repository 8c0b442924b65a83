#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/dataset.hpp"
#include "data/token_shards.hpp"

namespace lockstep::data {

struct TokensOptions {
  std::string path = {};             ///< a file, a folder or a pattern: see TokenShards
  std::string validation_path = {};  ///< the same for validation; empty: the last part of `path`
  TokenFormat format = TokenFormat::detect;
  int vocab_size = 50257;               ///< ids are below it; at most 65,536
  double validation_fraction = 0;       ///< of `path`; 0 with a validation_path
  std::int64_t validation_targets = 0;  ///< at most so many tokens are predicted in validation; 0: all
  std::int64_t length = 1024;           ///< positions a sample
  std::uint64_t seed = 1;
};

/// A language model's samples from files of token ids. Windows are those of a text (make_text) over the sequence of all
/// shards: one may begin in one shard and end in the next. ErrorKind::data for files that are wrong or too short.
[[nodiscard]] std::unique_ptr<Dataset> make_tokens(const TokensOptions& options);

}  // namespace lockstep::data
