#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace lockstep {

/// What the reader of an error can do next; each kind has its own exit code, which scripts rely on.
enum class ErrorKind {
  internal = 1,     ///< a broken promise of ours: report it
  config = 2,       ///< the job file or the command line: correct it
  data = 3,         ///< the training data is missing or malformed
  checkpoint = 4,   ///< a checkpoint cannot be read, written or applied
  diverged = 5,     ///< the numbers went bad: the message says what to try
  hang = 6,         ///< a rank did not answer in time
  desync = 7,       ///< ranks disagree about a value that must be equal
  environment = 8,  ///< the machine lacks something: driver, device, library, memory
  preempted = 75,   ///< asked to stop; everything was saved
};

/// The code a program leaves with after an error of this kind.
[[nodiscard]] constexpr int exit_code(ErrorKind kind) noexcept { return static_cast<int>(kind); }

[[nodiscard]] std::string_view to_string(ErrorKind kind) noexcept;

/// A place in our own sources. `std::source_location` is missing in clang 14, the builtins are not.
struct Location {
  const char* file = "";
  int line = 0;
  static constexpr Location current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// The one exception type. Its text is for people and complete: what, where, and the remedy.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

/// Throws an Error of `kind` with a formatted text.
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws ErrorKind::internal, with the caller's place, unless `condition` holds. For arguments that only our
/// own code or a C++ user of the library can get wrong.
void require(bool condition, std::string_view message, Location where = Location::current());

}  // namespace lockstep
