#include "data/tokenizer.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::data {
namespace {

/// 'e' (U+0065); of a character that a terminal would obey the number alone.
std::string name_of(char32_t code) {
  std::string character;
  append_utf8(character, code);
  const std::string number = fmt::format("U+{:04X}", static_cast<std::uint32_t>(code));
  return printable(character) == character ? fmt::format("'{}' ({})", character, number) : number;
}

[[noreturn]] void fail_prompt_not_utf8(std::string_view prompt, std::size_t at) {
  fail(ErrorKind::data, "byte {} of the prompt is 0x{:02x}, which is no UTF-8 there", at,
       static_cast<unsigned char>(prompt[at]));
}

[[noreturn]] void fail_not_utf8(std::string_view text, std::size_t at, std::string_view name,
                                std::string_view tokenizer) {
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
  fail(ErrorKind::data,
       "{}: byte {} (in line {}) is 0x{:02x}, which is no UTF-8 there, so the text has no characters for "
       "data.tokenizer: {}\n  Take data.tokenizer: byte, or write the file as UTF-8 (iconv -f ISO-8859-1 -t UTF-8)",
       name, at, line, static_cast<unsigned char>(text[at]), tokenizer);
}

}  // namespace

Tokenizer Tokenizer::of_characters(std::string_view text, std::string_view name) {
  require(!text.empty(), "Tokenizer: the text is empty");
  constexpr std::int32_t absent = -1, present = 0;
  Tokenizer result;
  std::vector<std::int32_t>& symbol_of = result.symbol_of_;
  const std::size_t end = each_character(text, [&](char32_t code) {
    if (code >= symbol_of.size()) symbol_of.resize(code + 1, absent);
    symbol_of[code] = present;
  });
  if (end != text.size()) fail_not_utf8(text, end, name, "char");
  for (char32_t code = 0; code < symbol_of.size(); ++code) {
    if (symbol_of[code] == absent) continue;
    symbol_of[code] = result.size();
    result.code_of_.push_back(code);
  }
  return result;
}

Tokenizer Tokenizer::of_bytes() {
  Tokenizer result;
  result.bytes_ = true;
  for (char32_t byte = 0; byte < 256; ++byte) result.code_of_.push_back(byte);
  return result;
}

Tokenizer Tokenizer::of_subwords(std::shared_ptr<const Bpe> bpe, std::string_view text, std::string_view name) {
  require(bpe != nullptr && !text.empty(), "Tokenizer: the text is empty");
  const std::size_t end = each_character(text, [](char32_t) {});
  if (end != text.size()) fail_not_utf8(text, end, name, "gpt2");
  Tokenizer result;
  result.bpe_ = std::move(bpe);
  return result;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view prompt) const {
  std::vector<std::int32_t> tokens;
  if (bpe_ != nullptr) {
    const std::size_t end = each_character(prompt, [](char32_t) {});
    if (end != prompt.size()) fail_prompt_not_utf8(prompt, end);
    bpe_->encode(prompt, tokens);
    return tokens;
  }
  tokens.reserve(prompt.size());
  if (bytes_) {
    each_symbol(prompt, [&](std::int32_t symbol) { tokens.push_back(symbol); });
    return tokens;
  }
  const std::size_t end = each_character(prompt, [&](char32_t code) {
    if (code >= symbol_of_.size() || symbol_of_[code] < 0)
      fail(ErrorKind::data,
           "character {} of the prompt is {}, which the training text never contains: give a prompt without it, or "
           "train with data.tokenizer: byte",
           tokens.size() + 1, name_of(code));
    tokens.push_back(symbol_of_[code]);
  });
  if (end != prompt.size()) fail_prompt_not_utf8(prompt, end);
  return tokens;
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  if (bpe_ != nullptr) return bpe_->decode(tokens);
  std::string text;
  text.reserve(tokens.size());
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= size())
      fail(ErrorKind::data, "token {} is not a symbol: the vocabulary has 0 to {}", token, size() - 1);
    const char32_t code = code_of_[static_cast<std::size_t>(token)];
    if (bytes_)
      text.push_back(static_cast<char>(code));
    else
      append_utf8(text, code);
  }
  return text;
}

}  // namespace lockstep::data
