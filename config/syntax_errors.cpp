#include "config/syntax_errors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "config/outline.hpp"
#include "config/source.hpp"

namespace lockstep::config {
namespace {

constexpr std::size_t none = std::string::npos;
constexpr int longest_key = 1024;  // the parser's limit

/// The parser's words, or how they begin, and ours.
struct Translation {
  std::string_view complaint;
  const char* message;
  const char* remedy;
};
constexpr std::array<Translation, 23> translations = {{
    {"unknown escape character", "a \\ in double quotes begins an escape, and there is none such",
     "write \\\\ for a backslash, or use single quotes"},
    {"bad character found while scanning hex number", "an escape such as \\u00e9 needs all its hexadecimal digits", ""},
    {"invalid unicode", "this escape names no character", ""},
    {"illegal block entry", "a list entry (- ...) cannot begin here", "begin it on a line of its own, or write [a, b]"},
    {"alias", "aliases (*name) are not supported", "write the value out, or put the text in quotes"},
    {"illegal character found while scanning alias", "aliases (*name) are not supported", "put the text in quotes"},
    {"anchor", "anchors (&name) are not supported", "write the value without the anchor"},
    {"illegal character found while scanning anchor", "anchors (&name) are not supported", "put the text in quotes"},
    {"cannot assign multiple aliases", "aliases (*name) are not supported", "write the value out"},
    {"cannot assign multiple anchors", "anchors (&name) are not supported", "write the value without the anchor"},
    {"the referenced anchor is not defined", "aliases (*name) are not supported", "write the value out"},
    {"cannot assign multiple tags", "type tags (!name) are not supported", "remove the tag"},
    {"end of verbatim tag not found", "type tags (!name) are not supported", "remove the tag"},
    {"tag handle with no suffix", "type tags (!name) are not supported", "remove the tag"},
    {"illegal character found while scanning tag", "type tags (!name) are not supported", "remove the tag"},
    {"bad YAML version", "lines that begin with % are not supported", "remove the line"},
    {"YAML", "lines that begin with % are not supported", "remove the line"},
    {"TAG", "lines that begin with % are not supported", "remove the line"},
    {"repeated", "lines that begin with % are not supported", "remove the line"},
    {"cannot set zero indentation", "a text over several lines (| or >) is not supported", "write it in one line"},
    {"unexpected character in block scalar", "a text over several lines (| or >) is not supported",
     "write it in one line"},
    {"illegal map key", "a key must be a single word", "remove the ?"},
    {"illegal document indicator in scalar", "a document mark (--- or ...) cannot stand here", "remove it"},
}};

class Explainer {
 public:
  Explainer(const std::string& text, std::string_view complaint, int line, int column)
      : source_(make_source("", text)),
        complaint_(complaint),
        line_(std::clamp(line, 1, static_cast<int>(source_->lines.size()))),
        column_(std::max(column, 1)) {}

  SyntaxError run(const Outline& outline) {
    // What the eye finds behind the parser's place is another mistake.
    for (const auto* found : {&outline.quote, &outline.variable, &outline.bracket, &outline.comma})
      if (*found && (*found)->line <= line_) return **found;
    if (auto tab = indented_with_tab()) return *tab;
    if (complaint_.starts_with("bad character found while scanning hex number"))
      if (auto escape = short_escape()) return *escape;
    for (const Translation& known : translations)
      if (complaint_.starts_with(known.complaint)) return here(known.message, known.remedy);
    if (complaint_ == "unknown token")
      return here(fmt::format("a value cannot begin with {}", character()), "put it in quotes");
    if (complaint_ == "illegal map value") return misplaced_colon();
    if (complaint_ == "end of map not found") return strayed_from("keys");
    if (complaint_ == "end of sequence not found") return strayed_from("list");
    if (complaint_.find("flow") != none)
      return here("a comma or a closing bracket should stand here",
                  follows_colon() ? "or a blank, after the colon" : "");
    return here("this cannot be read as YAML", "");
  }

 private:
  [[nodiscard]] const std::string& text_of(int line) const {
    return source_->lines[static_cast<std::size_t>(line - 1)];
  }

  [[nodiscard]] SyntaxError here(std::string message, std::string remedy) const {
    return {line_, column_, std::move(message), std::move(remedy)};
  }

  /// As in {match:[x]}: without a blank the colon is a part of the word.
  [[nodiscard]] bool follows_colon() const {
    const auto before = static_cast<std::size_t>(column_ - 2);
    return column_ >= 2 && before < text_of(line_).size() && text_of(line_)[before] == ':';
  }

  [[nodiscard]] std::string character() const {
    const std::string& text = text_of(line_);
    const auto at = static_cast<std::size_t>(column_ - 1);
    return at < text.size() ? std::string(1, text[at]) : "this";
  }

  /// The parser notices a tab where it stops making sense, which may be one line late.
  [[nodiscard]] std::optional<SyntaxError> indented_with_tab() const {
    for (int line = line_; line >= std::max(1, line_ - 1); --line) {
      const std::string& text = text_of(line);
      const std::size_t tab = text.substr(0, text.find_first_not_of(" \t")).find('\t');
      if (tab != none && text.find_first_not_of(" \t\r") != none)
        return SyntaxError{line, static_cast<int>(tab) + 1, "a tab cannot indent", "indent with blanks"};
    }
    return {};
  }

  /// An escape without all its digits; the parser has read on by then.
  [[nodiscard]] std::optional<SyntaxError> short_escape() const {
    for (int line = std::max(1, line_ - 1); line <= line_; ++line) {
      const std::string& text = text_of(line);
      for (std::size_t at = 0; (at = text.find('\\', at)) < text.size() && at + 1 < text.size(); at += 2) {
        const char kind = text[at + 1];
        const std::size_t wanted = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
        std::size_t given = 0;
        while (at + 2 + given < text.size() && std::isxdigit(static_cast<unsigned char>(text[at + 2 + given])) != 0)
          ++given;
        if (given < wanted)
          return SyntaxError{line, static_cast<int>(at) + 1,
                             fmt::format("the escape \\{} needs {} hexadecimal digits", kind, wanted), ""};
      }
    }
    return {};
  }

  /// Number of the last line above that says anything; 0 if there is none.
  [[nodiscard]] int line_above() const {
    for (int line = line_ - 1; line >= 1; --line) {
      const std::size_t first = text_of(line).find_first_not_of(" \t\r");
      if (first != none && text_of(line)[first] != '#') return line;
    }
    return 0;
  }

  [[nodiscard]] SyntaxError misplaced_colon() const {
    const std::string& text = text_of(line_);
    const std::size_t first = text.find_first_not_of(" ");
    const std::size_t earlier = text.find(": ");
    if (earlier != none && earlier + 1 < static_cast<std::size_t>(column_))
      return here("a second key on one line",
                  "begin a block on the next line, or write it in braces; a text that holds ': ' goes in quotes");
    if (column_ > longest_key && (earlier == none || earlier + 1 >= static_cast<std::size_t>(column_)))
      return {line_, static_cast<int>(first) + 1, "this key has more than 1024 characters", "is a quote missing?"};
    const int above = line_above();
    const auto start = static_cast<int>(first == none ? 0 : first) + 1;
    if (above > 0 && text_of(above).find(':') == none)
      return {above, static_cast<int>(text_of(above).find_first_not_of(' ')) + 1, "this line has no colon",
              "write key: value"};
    if (above > 0)
      return {line_, start, fmt::format("this line is indented deeper than line {}, which has a value already", above),
              fmt::format("indent it as line {}", above)};
    return here("a key cannot stand here", "put a text that holds ': ' in quotes");
  }

  [[nodiscard]] SyntaxError strayed_from(const char* what) const {
    const std::string& text = text_of(line_);
    const std::size_t first = text.find_first_not_of(" \t");
    if (first != none && first + 1 == static_cast<std::size_t>(column_)) {
      const bool entry = text.compare(first, 2, "- ") == 0 && std::string_view(what) == "keys";
      return here(entry ? "a list entry (- ...) among keys" : "the indentation of this line fits no line above",
                  entry ? "indent it under the key that it belongs to" : "indent it as the keys that it stands beside");
    }
    return here("this does not belong to the value before it", "put the whole value in quotes");
  }

  std::shared_ptr<const Source> source_;
  std::string_view complaint_;
  int line_;
  int column_;
};

}  // namespace

SyntaxError explain_syntax(const std::string& text, std::string_view complaint, int line, int column) {
  return Explainer(text, complaint, line, column).run(outline_of(text));
}

}  // namespace lockstep::config
