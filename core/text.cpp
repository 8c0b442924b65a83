#include "core/text.hpp"

#include <fmt/format.h>

#include <array>
#include <cstddef>

namespace lockstep {
namespace {

/// Bytes of the well-formed UTF-8 character at the front of `text` that a terminal shows; 0: none is there.
std::size_t shown_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  char32_t code = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3FU);
  }
  const bool control = code < 0xA0;  // the second row of control characters
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return control || overlong || surrogate || code > 0x10FFFF ? 0 : length;
}

}  // namespace

std::string human_bytes(double bytes) {
  static constexpr std::array units = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // The bound is where three digits round to 1024 of a unit: 1023.6 KiB is "1.00 MiB", not "1024 KiB".
  std::size_t unit = 0;
  while (bytes >= (unit == 0 ? 1024.0 : 1023.5) && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} bytes", bytes);
  const int decimals = bytes < 9.995 ? 2 : bytes < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", bytes, decimals, units[unit]);
}

std::string counted(std::int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string printable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t shown = shown_bytes(text);
    if (shown > 0)
      result += text.substr(0, shown);
    else
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text.front()));
    text.remove_prefix(shown > 0 ? shown : 1);
  }
  return result;
}

}  // namespace lockstep
