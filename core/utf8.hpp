#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// UTF-8 as RFC 3629 has it: no form longer than needed, no surrogates, nothing above U+10FFFF.
namespace lockstep {

/// What a text begins with.
struct Utf8Front {
  enum class Form {
    whole,  ///< a character
    cut,    ///< the beginning of one: the text ends within it
    wrong,  ///< bytes that no character has
  };
  Form form = Form::wrong;
  std::size_t bytes = 1;  ///< of the character, of its beginning, or of the part that is wrong: at least 1
  char32_t code = 0;      ///< of a whole character
};

/// Requires a text that is not empty.
[[nodiscard]] Utf8Front utf8_front(std::string_view text);

void append_utf8(std::string& text, char32_t code);

/// Calls visit(code) for each character, up to the first byte that is no UTF-8. Returns where that is, or text.size().
template <class Visit>
std::size_t each_character(std::string_view text, Visit&& visit) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {  // most texts are mostly this
      visit(static_cast<char32_t>(byte));
      ++at;
      continue;
    }
    const Utf8Front front = utf8_front(text.substr(at));
    if (front.form != Utf8Front::Form::whole) break;
    visit(front.code);
    at += front.bytes;
  }
  return at;
}

/// Makes UTF-8 of a stream of bytes, wherever it is cut: each wrong part becomes one U+FFFD, and the beginning of a
/// character waits for its end.
class Utf8Stream {
 public:
  /// What can be shown now.
  [[nodiscard]] std::string push(std::string_view bytes);
  /// What is left when nothing more comes: U+FFFD, if a character was cut short.
  [[nodiscard]] std::string finish();

 private:
  std::string held_;  ///< the beginning of a character
};

}  // namespace lockstep
