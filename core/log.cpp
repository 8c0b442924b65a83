#include "core/log.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
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

}  // namespace

Level threshold() { return current().load(std::memory_order_relaxed); }
void set_threshold(Level level) { current().store(level); }

void set_rank(int rank, int size, std::string_view host) {
  own_rank = rank;
  ranks = size;
  own_host = host;
}

void show(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
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
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace lockstep::log
