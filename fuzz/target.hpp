#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "core/error.hpp"

/// What is fed with bytes that nobody has checked: every reader of a file that may come from somewhere else.
namespace lockstep::fuzz {

/// One reader under test. `run` returns for every input, whatever it holds: a reader either takes it, and keeps what
/// its header promises of what it has read, or refuses it with an Error that names the place. All else is a finding: a
/// signal, a report of a sanitizer, a Finding, another exception, too much time or memory.
struct Target {
  std::string_view name;  ///< as of its folders in fuzz/seeds and fuzz/regressions
  void (*run)(std::string_view input);
  std::size_t longest;  ///< bytes of an input that are worth trying
};

[[nodiscard]] std::span<const Target> targets();
/// ErrorKind::config with all names if there is none of this name.
[[nodiscard]] const Target& target(std::string_view name);

/// A promise that a reader did not keep.
class Finding : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws a Finding unless `kept`.
void promise(bool kept, std::string_view what);

/// Throws a Finding if this is no way to refuse a file: an error of our own making, one that does not say where, or one
/// with bytes that a terminal obeys or cannot show.
void check_refusal(const Error& error, std::string_view place);

/// Calls read(), which may refuse with an Error whose text has `place` in it. True if it did not.
template <class Read>
bool accepts(std::string_view place, Read&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    check_refusal(error, place);
    return false;
  }
}

/// A file with the input, for readers that take a path. It lies alone in a folder of TMPDIR, which goes with the
/// object.
class InputFile {
 public:
  explicit InputFile(const std::string& name);
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  void set(std::string_view bytes);
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }

 private:
  std::string folder_, path_;
  int file_ = -1;
};

}  // namespace lockstep::fuzz
