#include "config/outline.hpp"

#include <fmt/format.h>

#include "config/source.hpp"

namespace lockstep::config {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool opens(char c) { return c == '{' || c == '['; }
bool closes(char c) { return c == '}' || c == ']'; }
char partner(char c) { return c == '{' ? '}' : ']'; }

class Scanner {
 public:
  explicit Scanner(const std::string& text) : source_(make_source("", text)) {}

  Outline run() {
    for (; line_number_ < source_->lines.size(); ++line_number_) {
      line_ = source_->lines[line_number_];
      at_ = 0;
      if (stack_.empty()) at_start_ = true;
      while (at_ < line_.size() && !found_.quote) step();
      if (found_.quote) return found_;
    }
    if (!found_.bracket && !stack_.empty()) {
      const Open& open = suspect_.value_or(stack_.back());
      found_.bracket = at(open.line, open.column, fmt::format("this {} is never closed", open.kind),
                          fmt::format("close it with {}", partner(open.kind)));
    }
    return found_;
  }

 private:
  struct Open {
    char kind;
    std::size_t line, column;
    bool has_colon = false;               ///< of the entry at hand
    bool has_value = false;               ///< the entry at hand is complete: a comma must come next
    std::size_t word_line = 0, word = 0;  ///< where its last word begins
  };

  static SyntaxError at(std::size_t line, std::size_t column, std::string message, std::string remedy) {
    return {static_cast<int>(line) + 1, static_cast<int>(column) + 1, std::move(message), std::move(remedy)};
  }

  void step() {
    const char c = line_[at_];
    const bool after_blank = at_ == 0 || is_blank(line_[at_ - 1]);
    if (is_blank(c)) {
      ++at_;
      return;
    }
    if (c == '#' && after_blank) {
      at_ = line_.size();
      return;
    }
    variable();
    if ((c == '"' || c == '\'') && (at_start_ || (!stack_.empty() && after_blank)))
      quoted();
    else if (opens(c) && (at_start_ || !stack_.empty()))
      open(c);
    else if (closes(c) && (at_start_ || !stack_.empty() || (at_ > 0 && closes(line_[at_ - 1]))))
      close(c);
    else if (c == ',' && !stack_.empty())
      next_entry();
    else if (c == ':' && ends_key())
      colon();
    else if (c == '-' && at_start_ && stack_.empty() && (at_ + 1 == line_.size() || is_blank(line_[at_ + 1])))
      ++at_;
    else
      plain(after_blank);
  }

  /// ${NAME} and {{ name }}, which someone forgot to fill in.
  void variable() {
    if (found_.variable) return;
    if (line_.compare(at_, 2, "${") == 0 && !stack_.empty()) {
      const std::string name = line_.substr(at_, line_.find('}', at_) - at_ + 1);
      found_.variable = at(line_number_, at_, fmt::format("{} is not filled in: a job file has no variables", name),
                           "write the value, or give it with --set");
    } else if (line_.compare(at_, 2, "{{") == 0 && at_start_) {
      found_.variable = at(line_number_, at_, "{{ }} is not filled in: a job file is no template",
                           "write the value, or give it with --set");
    }
  }

  void quoted() {
    const std::size_t end = end_of_quoted(line_, at_);
    if (end == std::string::npos) {
      found_.quote = unclosed_quote(static_cast<int>(line_number_) + 1, static_cast<int>(at_) + 1, line_[at_]);
      return;
    }
    word(at_);
    at_ = end;
    at_start_ = false;
    value();
  }

  void open(char c) {
    word(at_);
    stack_.push_back({c, line_number_, at_});
    at_start_ = true;
    ++at_;
  }

  void close(char c) {
    if (stack_.empty()) {
      if (!found_.bracket)
        found_.bracket = at(line_number_, at_, fmt::format("nothing is open that this {} could close", c), "remove it");
    } else {
      const Open& open = stack_.back();
      if (partner(open.kind) != c && !found_.bracket)
        found_.bracket =
            at(open.line, open.column,
               fmt::format("this {} is not closed before the {} in line {}", open.kind, c, line_number_ + 1),
               fmt::format("close it with {}", partner(open.kind)));
      // A bracket that is first on its line stands under the line of its partner, or one of the two is another's.
      const std::size_t indent = line_.find_first_not_of(" \t");
      if (!suspect_ && indent == at_ && source_->lines[open.line].find_first_not_of(" \t") > indent) suspect_ = open;
      stack_.pop_back();
    }
    at_start_ = false;
    ++at_;
    value();
  }

  void next_entry() {
    Open& open = stack_.back();
    open.has_colon = open.has_value = false;
    at_start_ = true;
    ++at_;
  }

  [[nodiscard]] bool ends_key() const {
    const char next = at_ + 1 < line_.size() ? line_[at_ + 1] : ' ';
    const bool after_quote = at_ > 0 && (line_[at_ - 1] == '"' || line_[at_ - 1] == '\'');
    return is_blank(next) || (!stack_.empty() && (next == ',' || closes(next) || opens(next) || after_quote));
  }

  void colon() {
    if (!stack_.empty()) {
      Open& open = stack_.back();
      if (open.has_colon) missing_comma(open.word_line, open.word);
      open.has_colon = true;
      open.has_value = false;
    }
    at_start_ = true;
    ++at_;
  }

  void plain(bool after_blank) {
    if (at_start_ || after_blank) word(at_);
    at_start_ = false;
    ++at_;
  }

  /// A word begins here: in brackets, behind a complete value, there should have been a comma.
  void word(std::size_t column) {
    if (stack_.empty()) return;
    Open& open = stack_.back();
    if (open.has_value) missing_comma(line_number_, column);
    open.word_line = line_number_;
    open.word = column;
  }
  void value() {
    if (!stack_.empty()) stack_.back().has_value = true;
  }

  void missing_comma(std::size_t line, std::size_t column) {
    if (!found_.comma)
      found_.comma = at(line, column, "a comma is missing before this", "entries in brackets are separated by commas");
  }

  std::shared_ptr<const Source> source_;
  std::size_t line_number_ = 0;
  std::string line_;
  std::size_t at_ = 0;
  bool at_start_ = true;  ///< a value or key may begin here
  std::vector<Open> stack_;
  std::optional<Open> suspect_;
  Outline found_;
};

}  // namespace

SyntaxError unclosed_quote(int line, int column, char quote) {
  return {line, column, "this quote is not closed on its line", fmt::format("close it with {}", quote)};
}

std::size_t end_of_quoted(std::string_view line, std::size_t at) {
  const char quote = line[at];
  for (++at; at < line.size(); ++at) {
    if (quote == '"' && line[at] == '\\') {
      ++at;
    } else if (line[at] == quote) {
      // Two single quotes are one inside of single quotes.
      if (quote == '\'' && at + 1 < line.size() && line[at + 1] == quote)
        ++at;
      else
        return at + 1;
    }
  }
  return std::string::npos;
}

Outline outline_of(const std::string& text) { return Scanner(text).run(); }

}  // namespace lockstep::config
