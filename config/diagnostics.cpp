#include "config/diagnostics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <tuple>

#include "core/error.hpp"

namespace lockstep {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows suffice: a swap looks back two.
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const char x = lower(a[i - 1]);
      const char y = lower(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (x == y ? 0 : 1)});
      if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

bool is_continuation_byte(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

int characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation_byte(c); }));
}

/// The source line with a caret under the place. Tabs are kept in the margin so that the caret stays aligned.
std::string excerpt(const Place& place, const std::string& remedy) {
  if (!place.source || place.line < 1 || static_cast<std::size_t>(place.line) > place.source->lines.size())
    return remedy.empty() ? std::string() : fmt::format("   {}\n", remedy);
  const std::string& line = place.source->lines[static_cast<std::size_t>(place.line - 1)];
  const auto start = std::min(line.size(), static_cast<std::size_t>(std::max(place.column - 1, 0)));
  const auto length = std::min(line.size() - start, static_cast<std::size_t>(std::max(place.length, 1)));
  std::string margin;
  for (std::size_t i = 0; i < start; ++i)
    if (!is_continuation_byte(line[i])) margin += line[i] == '\t' ? '\t' : ' ';
  const int width = std::max(1, characters(std::string_view(line).substr(start, length)));
  std::string caret(static_cast<std::size_t>(width), '~');
  caret[0] = '^';
  if (!remedy.empty()) caret.append(1, ' ').append(remedy);
  if (line.size() > 300) return fmt::format("   {}\n", remedy.empty() ? "(a long line)" : remedy);
  return fmt::format("{:>5} | {}\n      | {}{}\n", place.line, line, margin, caret);
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < std::max(word.size(), candidate.size())) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  return fmt::format("{}", fmt::join(words, separator));
}

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

std::string to_string(const Place& place) {
  if (!place.source) return "job";
  if (place.source->is_option || place.line < 1) return place.source->name;
  int column = place.column;
  if (static_cast<std::size_t>(place.line) <= place.source->lines.size()) {
    const std::string_view line = place.source->lines[static_cast<std::size_t>(place.line - 1)];
    column = characters(line.substr(0, static_cast<std::size_t>(std::max(place.column - 1, 0)))) + 1;
  }
  return fmt::format("{}:{}:{}", place.source->name, place.line, column);
}

void Diagnostics::error(const Place& place, std::string message, std::string remedy, std::string allowed) {
  const std::string name = place.source ? place.source->name : std::string();
  auto known = std::find(source_names_.begin(), source_names_.end(), name);
  if (known == source_names_.end()) known = source_names_.insert(source_names_.end(), name);
  errors_.push_back({place, std::move(message), std::move(remedy), std::move(allowed),
                     static_cast<std::size_t>(known - source_names_.begin())});
}

void Diagnostics::warning(const Place& place, const std::string& message) {
  warnings_.push_back(fmt::format("{}: warning: {}", to_string(place), message));
}

std::string Diagnostics::render() const {
  constexpr std::size_t shown_at_most = 100;
  std::vector<const Entry*> order;
  for (const Entry& entry : errors_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::tuple(a->source_order, a->place.line, a->place.column) <
           std::tuple(b->source_order, b->place.line, b->place.column);
  });
  std::string text;
  for (std::size_t i = 0; i < std::min(order.size(), shown_at_most); ++i) {
    const Entry& entry = *order[i];
    text += fmt::format("{}: error: {}\n", to_string(entry.place), entry.message);
    text += excerpt(entry.place, entry.remedy);
    if (!entry.allowed.empty()) text += fmt::format("   allowed: {}\n", entry.allowed);
  }
  text += errors_.size() == 1 ? "1 error" : fmt::format("{} errors", errors_.size());
  if (errors_.size() > shown_at_most) text += fmt::format(", the first {} shown", shown_at_most);
  return text;
}

void Diagnostics::throw_if_errors() const {
  if (!errors_.empty()) throw Error(ErrorKind::config, render());
}

}  // namespace lockstep
