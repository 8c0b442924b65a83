#include "core/error.hpp"

namespace lockstep {

std::string_view to_string(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::internal:
      return "internal error";
    case ErrorKind::config:
      return "configuration error";
    case ErrorKind::data:
      return "data error";
    case ErrorKind::checkpoint:
      return "checkpoint error";
    case ErrorKind::diverged:
      return "diverged";
    case ErrorKind::hang:
      return "hang";
    case ErrorKind::desync:
      return "desync";
    case ErrorKind::environment:
      return "environment error";
    case ErrorKind::preempted:
      return "preempted";
  }
  return "error";
}

void require(bool condition, std::string_view message, Location where) {
  if (condition) [[likely]]
    return;
  fail(ErrorKind::internal, "{} ({}:{})", message, where.file, where.line);
}

}  // namespace lockstep
