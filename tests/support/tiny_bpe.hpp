#pragma once

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/utf8.hpp"

namespace lockstep::testing {

/// The text of a token, spelled as vocab.json does: bytes that do not print have characters from U+0100 on.
inline std::string spelled_token(std::string_view bytes) {
  static const std::array<char32_t, 256> characters = [] {
    std::array<char32_t, 256> table{};
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool prints = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
      table[b] = prints ? b : next++;
    }
    return table;
  }();
  std::string text;
  for (const char byte : bytes) append_utf8(text, characters[static_cast<unsigned char>(byte)]);
  return text;
}

/// Writes vocab.json and merges.txt into a folder: the 256 bytes, then the merges in order, then <|endoftext|>.
inline void write_bpe(const std::string& folder, const std::vector<std::pair<std::string, std::string>>& merges) {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[spelled_token(std::string(1, static_cast<char>(byte)))] = byte;
  int next = 256;
  std::ofstream file(folder + "/merges.txt");
  file << "#version: 0.2\n";
  for (const auto& [left, right] : merges) {
    vocab[spelled_token(left + right)] = next++;
    file << spelled_token(left) << " " << spelled_token(right) << "\n";
  }
  vocab["<|endoftext|>"] = next;
  std::ofstream(folder + "/vocab.json") << vocab.dump();
}

/// Merges that make "the", " the", "he", "don", "'t", "é" and " e" tokens.
inline std::vector<std::pair<std::string, std::string>> english_merges() {
  return {{"t", "h"},  {"th", "e"}, {" ", "the"},     {"h", "e"}, {"d", "o"},
          {"do", "n"}, {"'", "t"},  {"\xC3", "\xA9"}, {" ", "e"}};
}

}  // namespace lockstep::testing
