#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::data {

/// GPT-2's tokenizer: byte pair encoding over bytes (Sennrich et al., "Neural machine translation of rare words with
/// subword units", ACL 2016; Radford et al. 2019), from the two files that published models come with. Any text can be
/// encoded, since each byte is a token; special tokens such as <|endoftext|> are not looked for in it.
///
/// A text is cut into pieces by GPT-2's pattern: contractions ('s, 're, ...), runs of letters, of digits, of other
/// characters, each with a blank before it, and runs of white space. In each piece, which begins as its bytes, the
/// neighbours whose merge has the lowest rank are joined until none is left. What is a letter or a digit is Unicode's,
/// in the version that the PCRE2 library knows.
///
/// Not thread-safe: it remembers the pieces that it has seen.
class Bpe {
 public:
  /// `vocab`: vocab.json, an object of token text -> number, each number below its size once; `merges`: merges.txt, a
  /// pair of token texts a line, best first. Token texts spell bytes as GPT-2 does (docs/data.md). ErrorKind::data with
  /// the place if they cannot be read, or a token that is needed is missing.
  Bpe(const std::string& vocab, const std::string& merges);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;
  ~Bpe();

  [[nodiscard]] int size() const { return static_cast<int>(bytes_of_.size()); }
  /// Appends the tokens of a text. Requires UTF-8.
  void encode(std::string_view text, std::vector<std::int32_t>& tokens) const;
  /// The bytes of the tokens. ErrorKind::data if a number is no token.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> tokens) const;
  /// XXH3-64 of all tokens and merges.
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }
  /// The number of a special token, or -1.
  [[nodiscard]] std::int32_t end_of_text() const { return end_of_text_; }

 private:
  class Pieces;
  class Words;
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t token = 0;  ///< what the pair becomes
  };
  void read_vocabulary(const std::string& path);
  void read_merges(const std::string& path);
  void merge(std::string_view piece, std::vector<std::int32_t>& tokens) const;

  std::vector<std::string> bytes_of_;   ///< of each token
  std::vector<std::int32_t> token_of_;  ///< of each byte
  std::unique_ptr<Words> words_;        ///< token texts -> numbers, merges, pieces already seen
  std::unique_ptr<Pieces> pieces_;      ///< the pattern
  std::uint64_t fingerprint_ = 0;
  std::int32_t end_of_text_ = -1;
};

}  // namespace lockstep::data
