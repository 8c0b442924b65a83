#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep {

/// Bytes for people: "512 bytes", "3.1 MiB", "392 TiB". Three significant digits from KiB on.
[[nodiscard]] std::string human_bytes(double bytes);

/// "1 layer", "12 layers".
[[nodiscard]] std::string counted(std::int64_t count, std::string_view noun);

/// A text from outside (a file's name or content) as it may be printed: control bytes, and what is no UTF-8, as \x1b.
/// A terminal obeys control bytes; a message must not.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace lockstep
