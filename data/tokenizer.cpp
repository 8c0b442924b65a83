#include "data/tokenizer.hpp"

#include "core/error.hpp"

namespace lockstep::data {

Tokenizer::Tokenizer(const std::array<bool, 256>& present) {
  for (std::size_t byte = 0; byte < present.size(); ++byte) {
    symbol_of_[byte] = present[byte] ? size() : -1;
    if (present[byte]) {
      byte_of_.push_back(static_cast<std::uint8_t>(byte));
    }
  }
}

Tokenizer Tokenizer::of_text(std::span<const std::uint8_t> text) {
  require(!text.empty(), "Tokenizer: the text is empty");
  std::array<bool, 256> present{};
  for (const std::uint8_t byte : text) {
    present[byte] = true;
  }
  return Tokenizer(present);
}

Tokenizer Tokenizer::of_bytes() {
  std::array<bool, 256> present{};
  present.fill(true);
  return Tokenizer(present);
}

std::vector<std::int32_t> Tokenizer::encode(const std::string& text) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    if (symbol_of_[byte] < 0) {
      const bool printable = byte > 0x20 && byte < 0x7F;
      fail(ErrorKind::data,
           "byte {} of the text is 0x{:02x}{}, which the training text never contains: leave it out, or train with "
           "data.tokenizer: byte",
           i, byte, printable ? fmt::format(" ('{}')", text[i]) : std::string());
    }
    tokens.push_back(symbol_of_[byte]);
  }
  return tokens;
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  text.reserve(tokens.size());
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= size()) {
      fail(ErrorKind::data, "token {} is not a symbol: the vocabulary has 0 to {}", token, size() - 1);
    }
    text.push_back(static_cast<char>(byte_of_[static_cast<std::size_t>(token)]));
  }
  return text;
}

}  // namespace lockstep::data
