#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/utf8.hpp"

namespace lockstep::data {

/// Numbers the symbols of a text. `char`: its distinct characters (Unicode code points, read as UTF-8), in the order of
/// their code points; `byte`: all 256 bytes, by value, of a text in any encoding.
class Tokenizer {
 public:
  /// Requires a text that is not empty. ErrorKind::data if it is not UTF-8; `name` is what the message calls it.
  [[nodiscard]] static Tokenizer of_characters(std::string_view text, std::string_view name);
  [[nodiscard]] static Tokenizer of_bytes();

  [[nodiscard]] int size() const { return static_cast<int>(code_of_.size()); }
  /// What a symbol is called: "character" or "byte".
  [[nodiscard]] std::string_view unit() const { return bytes_ ? "byte" : "character"; }

  /// Calls visit(symbol) for each symbol of the text that of_characters was given, or, with bytes, of any text.
  template <class Visit>
  void each_symbol(std::string_view text, Visit&& visit) const {
    if (bytes_)
      for (const char c : text) visit(static_cast<std::int32_t>(static_cast<unsigned char>(c)));
    else
      each_character(text, [&](char32_t code) { visit(symbol_of_[code]); });
  }

  /// The symbols of a prompt. ErrorKind::data, with its name and place, if one of its characters is not in the
  /// vocabulary or is no UTF-8.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view prompt) const;
  /// UTF-8 of characters; of bytes whatever they are. ErrorKind::data if a token is not a symbol.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> tokens) const;

 private:
  Tokenizer() = default;

  bool bytes_ = false;
  std::vector<char32_t> code_of_;        ///< of each symbol: code point, or byte
  std::vector<std::int32_t> symbol_of_;  ///< of each code point up to the largest; -1: none
};

}  // namespace lockstep::data
