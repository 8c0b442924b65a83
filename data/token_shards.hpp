#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lockstep::data {

/// How a file of tokens is laid out. `detect`: llm_c where the file begins with its magic number, else bare.
enum class TokenFormat {
  detect,
  llm_c,  ///< a header of 256 int32 (magic 20240520, version 1, number of tokens, zeros), then uint16 ids
  bare,   ///< uint16 ids and nothing else, as nanoGPT writes them
};

/// Files of 16-bit token ids, little-endian, read as one sequence in the order of their names. They are mapped into
/// memory and must not change meanwhile; what is not touched costs no memory.
class TokenShards {
 public:
  /// `path` is a file, a folder (its *.bin files), or a pattern with * ? [ ] in it. `key` names it in messages:
  /// "data.path". Reads every file once: all ids must be below `vocab_size`.
  /// ErrorKind::data, with file, place and remedy, for what cannot be read or is no such file; ErrorKind::config for a
  /// path that is no file, or a folder in which training and validation shards lie together.
  TokenShards(const std::string& key, const std::string& path, TokenFormat format, int vocab_size);

  [[nodiscard]] std::int64_t size() const { return begins_.back(); }  ///< tokens
  [[nodiscard]] std::size_t files() const { return maps_.size(); }
  /// XXH3-64 of the ids: equal for equal sequences, in whatever format and however cut into files.
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }
  /// out <- ids [first, first + count), which must exist; they may lie in several files.
  void copy(std::int64_t first, std::int64_t count, std::int32_t* out) const;

 private:
  class Map;
  struct Unmap {
    void operator()(Map* map) const noexcept;
  };
  std::vector<std::unique_ptr<Map, Unmap>> maps_;
  std::vector<std::int64_t> begins_ = {0};  ///< of each file's ids in the sequence; and the end of the last
  std::uint64_t fingerprint_ = 0;
};

}  // namespace lockstep::data
