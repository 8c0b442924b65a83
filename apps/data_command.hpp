#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "job/job.hpp"

namespace lockstep {

/// A line for each file: what it is by its first bytes, and how much it holds. A folder stands for its files, whose
/// names are read but not those of folders in it. ErrorKind::data for a path that is not there.
[[nodiscard]] std::string data_ls(const std::vector<std::string>& paths);

/// Reads a job's data as training would, in full, and says what is there: samples, an epoch, validation, the
/// fingerprint that checkpoints hold, and of classes how many samples each has. Throws what training would.
[[nodiscard]] std::string data_check(const job::LoadedJob& job);

struct TokenizeOptions {
  std::string input;                                      ///< a text, UTF-8
  std::string vocab;                                      ///< vocab.json
  std::string merges;                                     ///< merges.txt
  std::string output;                                     ///< a folder, which is made
  double validation_fraction = 0.1;                       ///< the last part of the text
  std::int64_t shard_tokens = std::int64_t{100'000'000};  ///< of one file
  bool end_of_text = false;                               ///< begin each part with <|endoftext|>
};
/// Writes a text as token shards, train_000000.bin, ... in OUTPUT/train and val_000000.bin, ... in OUTPUT/val, and says
/// what was written. The text is cut where a line begins, so that no token crosses the border.
[[nodiscard]] std::string data_tokenize(const TokenizeOptions& options);

}  // namespace lockstep
