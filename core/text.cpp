#include "core/text.hpp"

#include <fmt/format.h>

#include <array>
#include <cstddef>

#include "core/utf8.hpp"

namespace lockstep {
namespace {

/// Bytes of the UTF-8 character at the front of `text` that a terminal shows; 0: none is there.
std::size_t shown_bytes(std::string_view text) {
  const Utf8Front front = utf8_front(text);
  const bool control = front.code < 0x20 || (front.code >= 0x7F && front.code < 0xA0);
  return front.form == Utf8Front::Form::whole && !control ? front.bytes : 0;
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
