#include "data/bpe.hpp"

#include <nlohmann/json.hpp>

#include "core/utf8.hpp"
#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"
#include "tests/support/tiny_bpe.hpp"

namespace lockstep::fuzz {
namespace {

/// vocab.json of the 256 bytes and of what tests/support/tiny_bpe.hpp merges.
const std::string& small_vocabulary() {
  static const std::string text = [] {
    nlohmann::json vocab;
    for (int byte = 0; byte < 256; ++byte)
      vocab[testing::spelled_token(std::string(1, static_cast<char>(byte)))] = byte;
    int next = 256;
    for (const auto& [left, right] : testing::english_merges()) vocab[testing::spelled_token(left + right)] = next++;
    return vocab.dump();
  }();
  return text;
}

/// What stands before the next NUL, which is taken off.
std::string_view part(std::string_view& input) {
  const std::size_t end = std::min(input.find('\0'), input.size());
  const std::string_view front = input.substr(0, end);
  input.remove_prefix(std::min(end + 1, input.size()));
  return front;
}

}  // namespace

void bpe(std::string_view input) {
  static InputFile vocab("vocab.json"), merges("merges.txt");
  const std::string_view first = part(input), second = part(input);
  vocab.set(first.empty() ? small_vocabulary() : first);
  merges.set(second);
  (void)accepts("data.", [&] {
    const data::Bpe bpe(vocab.path(), merges.path());
    if (each_character(input, [](char32_t) {}) != input.size()) return;  // encode() wants UTF-8
    std::vector<std::int32_t> tokens;
    bpe.encode(input, tokens);
    promise(bpe.decode(tokens) == input, "a text that does not come back from its tokens");
  });
}

}  // namespace lockstep::fuzz
