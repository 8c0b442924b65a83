#include "config/diagnostics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::config {
namespace {

bool is_continuation_byte(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

int characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation_byte(c); }));
}

/// A piece of a source line as it is shown. Tabs stay: the margin repeats them, so that the caret stays aligned.
std::string shown(std::string_view text) {
  std::string result;
  for (std::size_t tab = text.find('\t'); tab != text.npos; tab = text.find('\t')) {
    result += printable(text.substr(0, tab)) + '\t';
    text.remove_prefix(tab + 1);
  }
  return result + printable(text);
}

std::string blanks_for(std::string_view shown_text) {
  std::string blanks;
  for (const char c : shown_text)
    if (!is_continuation_byte(c)) blanks += c == '\t' ? '\t' : ' ';
  return blanks;
}

/// A long line (minified JSON) is shown around the place: what of it, and what stands for the rest.
struct Window {
  std::size_t begin, end;
};
Window window_around(std::string_view line, std::size_t place, std::size_t length) {
  constexpr std::size_t longest = 300, before = 60, behind = 100;
  if (line.size() <= longest) return {0, line.size()};
  std::size_t begin = place > before ? place - before : 0;
  std::size_t end = std::min(line.size(), place + std::min(length, behind) + behind);
  while (begin > 0 && is_continuation_byte(line[begin])) --begin;
  while (end < line.size() && is_continuation_byte(line[end])) ++end;
  return {begin, end};
}

/// The source line with a caret under the position.
std::string excerpt(const Position& position, const std::string& remedy) {
  if (!position.source || position.line < 1 || static_cast<std::size_t>(position.line) > position.source->lines.size())
    return remedy.empty() ? std::string() : fmt::format("   {}\n", remedy);
  const std::string_view whole = position.source->lines[static_cast<std::size_t>(position.line - 1)];
  const auto place = std::min(whole.size(), static_cast<std::size_t>(std::max(position.column - 1, 0)));
  const Window window = window_around(whole, place, static_cast<std::size_t>(std::max(position.length, 1)));
  const std::string_view line = whole.substr(window.begin, window.end - window.begin);
  const std::string left = window.begin > 0 ? "..." : "", right = window.end < whole.size() ? "..." : "";
  const std::size_t start = place - window.begin;
  const auto length = std::min(line.size() - start, static_cast<std::size_t>(std::max(position.length, 1)));
  const int width = std::max(1, characters(shown(line.substr(start, length))));
  std::string caret(static_cast<std::size_t>(width), '~');
  caret[0] = '^';
  if (!remedy.empty()) caret.append(1, ' ').append(remedy);
  return fmt::format("{:>5} | {}{}{}\n      | {}{}\n", position.line, left, shown(line), right,
                     blanks_for(left + shown(line.substr(0, start))), caret);
}

}  // namespace

std::shared_ptr<const Source> make_source(std::string name, const std::string& text, bool is_option) {
  auto source = std::make_shared<Source>();
  source->name = std::move(name);
  source->is_option = is_option;
  std::size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  while (at <= text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.pop_back();
    source->lines.push_back(std::move(line));
    at = end + 1;
  }
  return source;
}

std::string to_string(const Position& position) {
  if (!position.source) return "job";
  const std::string name = printable(position.source->name);
  if (position.source->is_option || position.line < 1) return name;
  int column = position.column;
  if (static_cast<std::size_t>(position.line) <= position.source->lines.size()) {
    const std::string_view line = position.source->lines[static_cast<std::size_t>(position.line - 1)];
    column = characters(line.substr(0, static_cast<std::size_t>(std::max(position.column - 1, 0)))) + 1;
  }
  return fmt::format("{}:{}:{}", name, position.line, column);
}

void Diagnostics::error(const Position& position, const std::string& message, const std::string& remedy,
                        const std::string& allowed) {
  const std::string name = position.source ? position.source->name : std::string();
  auto known = std::find(source_names_.begin(), source_names_.end(), name);
  if (known == source_names_.end()) known = source_names_.insert(source_names_.end(), name);
  errors_.push_back({position, printable(message), printable(remedy), printable(allowed),
                     static_cast<std::size_t>(known - source_names_.begin())});
}

void Diagnostics::warning(const Position& position, const std::string& message) {
  warnings_.push_back(fmt::format("{}: warning: {}", to_string(position), printable(message)));
}

Diagnostics::Words Diagnostics::first_error() const {
  if (errors_.empty()) return {};
  return {errors_.front().message, errors_.front().remedy};
}

std::string Diagnostics::render() const {
  constexpr std::size_t shown_at_most = 100;
  std::vector<const Entry*> order;
  for (const Entry& entry : errors_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::tuple(a->source_order, a->position.line, a->position.column) <
           std::tuple(b->source_order, b->position.line, b->position.column);
  });
  std::string text;
  for (std::size_t i = 0; i < std::min(order.size(), shown_at_most); ++i) {
    const Entry& entry = *order[i];
    text += fmt::format("{}: error: {}\n", to_string(entry.position), entry.message);
    text += excerpt(entry.position, entry.remedy);
    if (!entry.allowed.empty()) text += fmt::format("   allowed: {}\n", entry.allowed);
  }
  text += errors_.size() == 1 ? "1 error" : fmt::format("{} errors", errors_.size());
  if (errors_.size() > shown_at_most) text += fmt::format(", the first {} shown", shown_at_most);
  return text;
}

void Diagnostics::throw_if_errors() const {
  if (!errors_.empty()) throw Error(ErrorKind::config, render());
}

}  // namespace lockstep::config
