#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

/// Lines for people, on standard error: "lockstep: rank 1: ...". Numbers for programs go to metrics.jsonl. Layers below
/// engine do not print.
namespace lockstep::log {

enum class Level { debug, info, warning, error };

/// The lowest level that is printed: info, or what the environment variable LOCKSTEP_LOG (debug | info | warning |
/// error) says.
[[nodiscard]] Level threshold();
void set_threshold(Level level);

/// From now on lines of this thread name the rank, if there are several.
void set_rank(int rank, int size);

/// Prints one line (or several: the text may hold line ends) in one piece, so that ranks do not mix within it.
void write(Level level, std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (threshold() <= Level::debug) write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (threshold() <= Level::info) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (threshold() <= Level::warning) write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lockstep::log
