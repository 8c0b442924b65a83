#include "config/bytes.hpp"

#include <algorithm>
#include <string_view>

namespace lockstep::config {
namespace {

bool is_utf8(const std::string& text, std::size_t& bad) {
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t n = c < 0x80 ? 1 : (c >> 5U) == 6 ? 2 : (c >> 4U) == 14 ? 3 : (c >> 3U) == 30 ? 4 : 0;
    bool good = n != 0 && i + n <= text.size() && c != 0;
    for (std::size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(text[i + k]) & 0xC0U) == 0x80U;
    if (!good) {
      bad = i;
      return false;
    }
    i += n;
  }
  return true;
}

Position position_of_byte(const std::shared_ptr<const Source>& source, const std::string& text, std::size_t byte) {
  const auto head = std::string_view(text).substr(0, byte);
  const auto line = std::count(head.begin(), head.end(), '\n');
  const auto start = head.rfind('\n');
  return {source, static_cast<int>(line) + 1, static_cast<int>(start == head.npos ? byte : byte - start - 1) + 1};
}

}  // namespace

bool check_bytes(const std::string& text, const std::shared_ptr<const Source>& source, Diagnostics& diagnostics) {
  std::size_t bad = 0;
  if (is_utf8(text, bad)) return true;
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
