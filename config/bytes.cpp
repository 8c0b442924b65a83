#include "config/bytes.hpp"

#include <algorithm>
#include <string_view>

#include "core/utf8.hpp"

namespace lockstep::config {
namespace {

Position position_of_byte(const std::shared_ptr<const Source>& source, const std::string& text, std::size_t byte) {
  const auto head = std::string_view(text).substr(0, byte);
  const auto line = std::count(head.begin(), head.end(), '\n');
  const auto start = head.rfind('\n');
  return {source, static_cast<int>(line) + 1, static_cast<int>(start == head.npos ? byte : byte - start - 1) + 1};
}

}  // namespace

bool check_bytes(const std::string& text, const std::shared_ptr<const Source>& source, Diagnostics& diagnostics) {
  const std::size_t bad = std::min(each_character(text, [](char32_t) {}), text.find('\0'));
  if (bad == text.size()) return true;
  const Position position = position_of_byte(source, text, bad);
  if (text[bad] == '\0')
    diagnostics.error(position, "a NUL byte (0) stands in the text", "remove it; is this a text file?");
  else if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    diagnostics.error(position, "the text is UTF-16, not UTF-8", "save the file as UTF-8");
  else
    diagnostics.error(position, "the text is not UTF-8", "save the file as UTF-8");
  return false;
}

}  // namespace lockstep::config
