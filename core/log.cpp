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

}  // namespace

Level threshold() { return current().load(std::memory_order_relaxed); }
void set_threshold(Level level) { current().store(level); }

void set_rank(int rank, int size) {
  own_rank = rank;
  ranks = size;
}

void write(Level level, std::string_view text) {
  std::string line = "lockstep: ";
  if (ranks > 1) line += fmt::format("rank {}: ", own_rank);
  if (level == Level::warning) line += "warning: ";
  line += text;
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace lockstep::log
