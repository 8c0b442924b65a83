#include "fuzz/target.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/text.hpp"
#include "core/utf8.hpp"

namespace lockstep::fuzz {

void promise(bool kept, std::string_view what) {
  if (!kept) throw Finding(std::string(what));
}

void check_refusal(const Error& error, std::string_view place) {
  const std::string_view text = error.what();
  if (error.kind() == ErrorKind::internal) throw Finding(fmt::format("an internal error: {}", text));
  const bool clean = std::ranges::all_of(text, [](char c) { return c == '\n' || c == '\t' || (c & 0xE0) != 0; });
  if (!clean || text.find('\x7F') != text.npos || each_character(text, [](char32_t) {}) != text.size())
    throw Finding(fmt::format("an error whose text has control bytes or is no UTF-8: {}", printable(text)));
  if (text.find(place) == text.npos) throw Finding(fmt::format("an error that does not name {}: {}", place, text));
}

InputFile::InputFile(const std::string& name) {
  folder_ = (std::filesystem::temp_directory_path() / "lockstep-fuzz-XXXXXX").string();
  require(::mkdtemp(folder_.data()) != nullptr, "InputFile: mkdtemp failed");
  path_ = folder_ + "/" + name;
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  require(file_ >= 0, "InputFile: the file cannot be made");
}

InputFile::~InputFile() {
  ::close(file_);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void InputFile::set(std::string_view bytes) {
  require(::ftruncate(file_, 0) == 0, "InputFile: the file cannot be emptied");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::pwrite(file_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(ErrorKind::environment, "{}: cannot be written: {}", path_, std::strerror(errno));
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace lockstep::fuzz
