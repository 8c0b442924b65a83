#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lockstep::data {

/// Symbols are bytes. `char`: the distinct bytes of a text, numbered in byte order; `byte`: all 256, numbered by value.
/// A text in UTF-8 works with both (a letter outside ASCII is then several symbols).
class Tokenizer {
 public:
  /// The distinct bytes of `text`. Requires a text that is not empty.
  [[nodiscard]] static Tokenizer of_text(std::span<const std::uint8_t> text);
  [[nodiscard]] static Tokenizer of_bytes();

  [[nodiscard]] int size() const { return static_cast<int>(byte_of_.size()); }
  /// The symbol of a byte, or -1 where the vocabulary lacks it.
  [[nodiscard]] std::int32_t symbol(std::uint8_t byte) const { return symbol_of_[byte]; }

  /// ErrorKind::data if a byte of `text` is not in the vocabulary.
  [[nodiscard]] std::vector<std::int32_t> encode(const std::string& text) const;
  /// ErrorKind::data if a token is not a symbol.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> tokens) const;

 private:
  explicit Tokenizer(const std::array<bool, 256>& present);

  std::vector<std::uint8_t> byte_of_;
  std::array<std::int32_t, 256> symbol_of_{};
};

}  // namespace lockstep::data
