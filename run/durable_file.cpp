#include "run/durable_file.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/durable_folder.hpp"

namespace lockstep::run {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* what) {
  const int reason = errno;
  fail(ErrorKind::checkpoint, "{}: cannot be {}: {}", printable(path), what, std::strerror(reason));
}

}  // namespace

Hasher::Hasher() : state_(XXH3_createState()) {
  require(state_ != nullptr, "hasher: no memory for its state");
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}

Hasher::~Hasher() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void Hasher::add(const void* data, std::size_t bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
  bytes_ += bytes;
}

FileSum Hasher::sum() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_));
  return {.bytes = bytes_, .xxh3_128 = fmt::format("{:016x}{:016x}", hash.high64, hash.low64)};
}

std::string hash_of(std::string_view text) {
  Hasher hasher;
  hasher.add(text.data(), text.size());
  return hasher.sum().xxh3_128;
}

FileWriter::FileWriter(std::string path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) refuse(path_, "made");
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(const void* data, std::size_t bytes) {
  hasher_.add(data, bytes);
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, at, std::min(bytes, file_piece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path_, "written");
    at += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

FileSum FileWriter::finish() {
  if (::fsync(fd_) != 0) refuse(path_, "flushed to the disk");
  // Some file systems tell only here that they had no space.
  const int closed = ::close(fd_);
  fd_ = -1;
  if (closed != 0) refuse(path_, "closed");
  return hasher_.sum();
}

FileReader::FileReader(std::string path) : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) refuse(path_, "opened");
}

FileReader::~FileReader() { ::close(fd_); }

std::size_t FileReader::read(void* to, std::size_t bytes) {
  char* at = static_cast<char*>(to);
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::read(fd_, at + done, std::min(bytes - done, file_piece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse(path_, "read");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  hasher_.add(to, done);
  return done;
}

std::string read_text_file(const std::string& path, std::size_t limit) {
  FileReader reader(path);
  std::string text;
  for (;;) {
    const std::size_t size = text.size();
    text.resize(size + std::min(file_piece, limit + 1 - size));
    text.resize(size + reader.read(text.data() + size, text.size() - size));
    if (text.size() > limit)
      fail(ErrorKind::checkpoint, "{}: is longer than {}", printable(path), human_bytes(static_cast<double>(limit)));
    if (text.size() == size) return text;
  }
}

void replace_text_file(const std::string& path, std::string_view text) {
  const std::string folder = parent_of(path);
  const std::string temporary = folder + "/." + path.substr(path.rfind('/') + 1) + ".partial";
  FileWriter writer(temporary);
  writer.write(text.data(), text.size());
  (void)writer.finish();
  rename_path(temporary, path);
  sync_folder(folder);
}

}  // namespace lockstep::run
