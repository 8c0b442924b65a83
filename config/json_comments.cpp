#include "config/json_comments.hpp"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>

#include "config/outline.hpp"

namespace lockstep::config {
namespace {

std::optional<unsigned> hex4(const std::string& text, std::size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return std::nullopt;
  unsigned value = 0;
  const char* begin = text.data() + at + 2;
  const auto [end, error] = std::from_chars(begin, begin + 4, value, 16);
  if (error != std::errc() || end != begin + 4) return std::nullopt;
  return value;
}

class Blanker {
 public:
  explicit Blanker(const std::string& text) : in_(text) {}

  BlankedJson run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if ((c == '"' || c == '\'') && begins_token())
        string(c);
      else if ((c == '#' && begins_token()) || (in_.compare(at_, 2, "//") == 0 && !in_address()))
        line_comment();
      else if (in_.compare(at_, 2, "/*") == 0)
        block_comment();
      else
        put(c == '\t' ? ' ' : c);
    }
    return std::move(out_);
  }

 private:
  void put(char c) {
    out_.text += c;
    ++at_;
    ++column_;
    if (c == '\n') {
      ++line_;
      column_ = 1;
      moved_ = 0;
    }
  }
  void blank() { put(in_[at_] == '\n' || in_[at_] == '\r' ? in_[at_] : ' '); }

  /// Not in the middle of an unquoted word, as in it's and a#b.
  [[nodiscard]] bool begins_token() const {
    return at_ == 0 || std::string_view(" \t\r\n{}[],:\"'/").find(in_[at_ - 1]) != std::string_view::npos;
  }
  /// The // of s3://bucket.
  [[nodiscard]] bool in_address() const {
    return at_ >= 2 && in_[at_ - 1] == ':' && std::isalnum(static_cast<unsigned char>(in_[at_ - 2])) != 0;
  }

  void line_comment() {
    while (at_ < in_.size() && in_[at_] != '\n') blank();
  }

  void block_comment() {
    const int line = line_;
    const int column = column_ + moved_;
    const std::size_t end = in_.find("*/", at_ + 2);
    if (end == std::string::npos) out_.problems.push_back({line, column, "this comment is never closed with */"});
    while (at_ < in_.size() && (end == std::string::npos || at_ < end + 2)) blank();
  }

  void string(char quote) {
    const int column = column_ + moved_;
    put(quote);
    while (at_ < in_.size() && in_[at_] != quote) {
      if (in_[at_] == '\n') return unclosed(column, quote);
      if (quote == '"' && in_[at_] == '\\') {
        escape();
      } else {
        put(in_[at_]);
      }
    }
    if (at_ == in_.size()) return unclosed(column, quote);
    put(quote);
  }
  void unclosed(int column, char quote) {
    const SyntaxError error = unclosed_quote(line_, column, quote);
    out_.problems.push_back({line_, column, error.message, error.remedy});
    at_ = in_.size();  // what follows is turned inside out
  }

  void escape() {
    const auto high = hex4(in_, at_);
    if (!high || *high < 0xD800 || *high > 0xDFFF) {
      put(in_[at_]);
      if (at_ < in_.size() && in_[at_] != '\n') put(in_[at_]);
      return;
    }
    const auto low = hex4(in_, at_ + 6);
    if (*high > 0xDBFF || !low || *low < 0xDC00 || *low > 0xDFFF) {
      out_.problems.push_back({line_, column_ + moved_,
                               fmt::format("\\u{:04x} is half of a surrogate pair, its other half is missing", *high)});
      write("\\uFFFD", 6);
      return;
    }
    write(fmt::format("\\U{:08X}", 0x10000 + ((*high - 0xD800) << 10) + (*low - 0xDC00)), 12);
    moved_ += 2;
    out_.shifts.push_back({line_, column_ - 1, 2});
  }

  void write(const std::string& replacement, std::size_t consumed) {
    out_.text += replacement;
    column_ += static_cast<int>(replacement.size());
    at_ += consumed;
  }

  const std::string& in_;
  std::size_t at_ = 0;
  int line_ = 1;
  int column_ = 1;  // in the new text
  int moved_ = 0;   // bytes lost on this line
  BlankedJson out_;
};

}  // namespace

BlankedJson blank_json_comments(const std::string& text) { return Blanker(text).run(); }

}  // namespace lockstep::config
