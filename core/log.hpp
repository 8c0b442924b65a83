#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

/// Lines for people. What a command was asked for and how it goes (a run's header, its losses, its checkpoints) is for
/// reading later and goes to standard output; what went wrong goes to standard error: "lockstep: rank 1: ...". Numbers
/// for programs go to metrics.jsonl. Layers below engine do not print.
///
/// Nobody reading is no reason to stop: a closed pipe or a full disk behind either stream is passed over.
namespace lockstep::log {

enum class Level { debug, info, warning, error };

/// The lowest level that is printed: info, or what the environment variable LOCKSTEP_LOG (debug | info | warning |
/// error) says.
[[nodiscard]] Level threshold();
void set_threshold(Level level);

/// From now on lines of this thread name the rank, if there are several, and its host if one is given.
void set_rank(int rank, int size, std::string_view host = {});

enum class Form {
  line,  ///< "lockstep: rank 1: text"
  bare,  ///< the text alone: it says itself where it comes from
};

/// Prints one line (or several: the text may hold line ends) in one piece, so that ranks do not mix within it.
void write(Level level, std::string_view text, Form form = Form::line);

/// On standard output, as it is: what a command was asked to show while it goes on with its work.
void show(std::string_view text);
/// On a terminal behind standard output: `text`, which must fit into its width, over what the last call left there. It
/// goes as soon as anything else is printed.
void live(std::string_view text);
/// What live() left there becomes a line that stays.
void keep_live();
template <class... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  show(fmt::format(format, std::forward<Args>(args)...));
}

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
