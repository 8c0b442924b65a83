#include "config/text_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::config {
namespace {

/// An open file, closed with the object.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      // Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
      : number_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_;
};

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

std::string read_text_file(const std::string& path, std::size_t most) {
  if (path.find('\0') != std::string::npos)
    fail(ErrorKind::config, "{}: cannot be opened for reading; a path has no NUL byte", printable(path));
  const Descriptor file(path);
  struct stat status {};
  if (file.number() < 0 || ::fstat(file.number(), &status) != 0)
    fail(ErrorKind::config, "{}: cannot be opened for reading: {}; check the path", printable(path),
         std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    fail(ErrorKind::config, "{}: is {}, not a file; name a file that holds the text", printable(path),
         kind_of(status.st_mode));
  // What the system says of a file's length is a guess: some of its own files have none.
  std::string content(std::min(most, std::max<std::size_t>(static_cast<std::size_t>(status.st_size), 4095) + 1), '\0');
  std::size_t size = 0;
  while (size < most) {
    if (size == content.size()) content.resize(std::min(most, 2 * size));
    const ssize_t got = ::read(file.number(), content.data() + size, most - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ErrorKind::config, "{}: cannot be read: {}", printable(path), std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  content.resize(size);
  return content;
}

}  // namespace lockstep::config
