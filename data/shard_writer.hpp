#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lockstep::data {

/// Writes tokens as llm.c's shards: a header of 256 int32 (magic 20240520, version 1, number of tokens, zeros), then
/// the tokens as uint16, little-endian. Files are NAME_000000.bin, NAME_000001.bin, ..., each of at most `shard_tokens`
/// tokens. ErrorKind::environment if a file cannot be written: what was begun stays. ErrorKind::data for a token above
/// 65,535.
class ShardWriter {
 public:
  ShardWriter(std::string name, std::int64_t shard_tokens);
  void write(std::span<const std::int32_t> tokens);
  /// Writes the last file, if there is anything left. To be called once, at the end.
  void finish();

  [[nodiscard]] std::int64_t tokens() const { return tokens_; }
  [[nodiscard]] const std::vector<std::string>& files() const { return files_; }

 private:
  void flush();

  std::string name_;
  std::size_t shard_tokens_;
  std::vector<std::uint16_t> shard_;
  std::int64_t tokens_ = 0;
  std::vector<std::string> files_;
};

}  // namespace lockstep::data
