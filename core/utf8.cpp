#include "core/utf8.hpp"

namespace lockstep {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

/// Characters that begin with one byte value: how many bytes they have, and what the second may be.
struct Sequence {
  std::size_t bytes = 0;  ///< 0: none begins so
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
};

Sequence sequence_of(unsigned char first) {
  if (first < 0x80) return {1};
  if (first < 0xC2 || first > 0xF4) return {};
  if (first < 0xE0) return {2};
  if (first < 0xF0) {
    if (first == 0xE0) return {3, 0xA0, 0xBF};  // below: longer than needed
    if (first == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
    return {3};
  }
  if (first == 0xF0) return {4, 0x90, 0xBF};
  if (first == 0xF4) return {4, 0x80, 0x8F};  // above: past U+10FFFF
  return {4};
}

}  // namespace

Utf8Front utf8_front(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  const Sequence sequence = sequence_of(first);
  if (sequence.bytes == 0) return {};
  char32_t code = sequence.bytes == 1 ? first : first & (0x7FU >> sequence.bytes);
  for (std::size_t i = 1; i < sequence.bytes; ++i) {
    if (i == text.size()) return {Utf8Front::Form::cut, i, 0};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? byte >= sequence.low && byte <= sequence.high : (byte & 0xC0U) == 0x80;
    if (!fits) return {Utf8Front::Form::wrong, i, 0};
    code = code << 6 | (byte & 0x3FU);
  }
  return {Utf8Front::Form::whole, sequence.bytes, code};
}

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t bits) { text.push_back(static_cast<char>(bits)); };
  const auto follow = [&](unsigned shift) { put(0x80U | ((code >> shift) & 0x3FU)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0U | code >> 6);
  } else if (code < 0x10000) {
    put(0xE0U | code >> 12);
    follow(6);
  } else {
    put(0xF0U | code >> 18);
    follow(12);
    follow(6);
  }
  follow(0);
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string shown;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Front front = utf8_front(rest);
    if (front.form == Utf8Front::Form::cut) break;
    shown += front.form == Utf8Front::Form::whole ? rest.substr(0, front.bytes) : replacement;
    rest.remove_prefix(front.bytes);
  }
  held_ = std::string(rest);
  return shown;
}

std::string Utf8Stream::finish() {
  const bool cut = !held_.empty();
  held_.clear();
  return cut ? std::string(replacement) : std::string();
}

}  // namespace lockstep
