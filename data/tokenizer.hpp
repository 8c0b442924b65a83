#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/utf8.hpp"
#include "data/bpe.hpp"

namespace lockstep::data {

/// Numbers the symbols of a text. `char`: its distinct characters (Unicode code points, read as UTF-8), in the order of
/// their code points; `byte`: all 256 bytes, by value, of a text in any encoding; `gpt2`: the subwords of a Bpe.
class Tokenizer {
 public:
  /// Requires a text that is not empty. ErrorKind::data if it is not UTF-8; `name` is what the message calls it.
  [[nodiscard]] static Tokenizer of_characters(std::string_view text, std::string_view name);
  [[nodiscard]] static Tokenizer of_bytes();
  /// Of a text that is UTF-8; `name` and errors as for of_characters.
  [[nodiscard]] static Tokenizer of_subwords(std::shared_ptr<const Bpe> bpe, std::string_view text,
                                             std::string_view name);

  [[nodiscard]] int size() const { return bpe_ != nullptr ? bpe_->size() : static_cast<int>(code_of_.size()); }
  /// What a symbol is called: "character", "byte" or "token".
  [[nodiscard]] std::string_view unit() const { return bpe_ != nullptr ? "token" : bytes_ ? "byte" : "character"; }
  /// Null but for subwords.
  [[nodiscard]] const Bpe* bpe() const { return bpe_.get(); }

  /// Calls visit(symbol) for each symbol of the text that of_characters or of_subwords was given, or, with bytes, of
  /// any text.
  template <class Visit>
  void each_symbol(std::string_view text, Visit&& visit) const {
    if (bpe_ != nullptr)
      for (const std::int32_t symbol : encode(text)) visit(symbol);
    else if (bytes_)
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

  std::shared_ptr<const Bpe> bpe_;
  bool bytes_ = false;
  std::vector<char32_t> code_of_;        ///< of each symbol: code point, or byte
  std::vector<std::int32_t> symbol_of_;  ///< of each code point up to the largest; -1: none
};

}  // namespace lockstep::data
