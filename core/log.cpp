#include "core/log.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace lockstep::log {
namespace {

Level level_from_environment() {
  const char* word = std::getenv("LOCKSTEP_LOG");
  const std::string_view text = word == nullptr ? "" : word;
  if (text == "debug") return Level::debug;
  if (text == "warning") return Level::warning;
  if (text == "error") return Level::error;
  return Level::info;
}

std::atomic<Level>& current() {
  static std::atomic<Level> level{level_from_environment()};
  return level;
}

thread_local int own_rank = 0;
thread_local int ranks = 1;
thread_local std::string own_host;

/// Rank threads of one process print too.
std::mutex& turn() {
  static std::mutex mutex;
  return mutex;
}
std::size_t live_width = 0;  ///< characters that live() left on the terminal's line

void put(std::FILE* to, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), to);
  std::fflush(to);
}

/// Blanks, so that a terminal need not know any code.
void erase_live() {
  if (live_width == 0) return;
  put(stdout, "\r" + std::string(live_width, ' ') + "\r");
  live_width = 0;
}

}  // namespace

Level threshold() { return current().load(std::memory_order_relaxed); }
void set_threshold(Level level) { current().store(level); }

void set_rank(int rank, int size, std::string_view host) {
  own_rank = rank;
  ranks = size;
  own_host = host;
}

void show(std::string_view text) {
  const std::lock_guard lock(turn());
  erase_live();
  put(stdout, text);
}

void live(std::string_view text) {
  const std::lock_guard lock(turn());
  const std::size_t rest = live_width > text.size() ? live_width - text.size() : 0;
  put(stdout, fmt::format("\r{}{}", text, std::string(rest, ' ')));
  live_width = text.size();
}

void keep_live() {
  const std::lock_guard lock(turn());
  if (live_width > 0) put(stdout, "\n");
  live_width = 0;
}

void write(Level level, std::string_view text, Form form) {
  std::string line;
  if (form == Form::line) {
    line = "lockstep: ";
    if (ranks > 1)
      line +=
          own_host.empty() ? fmt::format("rank {}: ", own_rank) : fmt::format("rank {} on {}: ", own_rank, own_host);
    if (level == Level::warning) line += "warning: ";
  }
  line += text;
  line += '\n';
  const std::lock_guard lock(turn());
  erase_live();
  put(stderr, line);
}

}  // namespace lockstep::log
