#include "files/durable_file.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/text.hpp"
#include "files/durable_folder.hpp"

namespace lockstep::files {

void refuse(const std::string& path, std::string_view what, std::int64_t result) {
  const auto reason = static_cast<int>(-result);
  const std::string text = fmt::format("{}: cannot be {}: {}", printable(path), what, std::strerror(reason));
  if (reason == ENOSPC || reason == EDQUOT || reason == EIO) throw DiskTrouble(text);
  throw Error(ErrorKind::checkpoint, text);
}

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

FileWriter::FileWriter(std::string path, FileSystem& fs) : fs_(fs), path_(std::move(path)), file_(fs.create(path_)) {
  while (file_ == -EINTR) file_ = fs.create(path_);
  if (file_ < 0) refuse(path_, "made", file_);
}

FileWriter::~FileWriter() {
  if (file_ >= 0) (void)fs_.close(file_);
}

void FileWriter::write(const void* data, std::size_t bytes) {
  hasher_.add(data, bytes);
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = fs_.write(file_, at, std::min(bytes, file_piece));
    if (n == -EINTR) continue;
    if (n < 0) refuse(path_, "written", n);
    at += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

FileSum FileWriter::finish() {
  int flushed = fs_.sync(file_);
  while (flushed == -EINTR) flushed = fs_.sync(file_);
  if (flushed != 0) refuse(path_, "flushed to the disk", flushed);
  // Some file systems tell only here that they had no space. After EINTR the descriptor is gone on Linux.
  const int closed = fs_.close(file_);
  file_ = -1;
  if (closed != 0 && closed != -EINTR) refuse(path_, "closed", closed);
  return hasher_.sum();
}

FileReader::FileReader(std::string path, bool follow, FileSystem& fs)
    : fs_(fs), path_(std::move(path)), file_(fs.open(path_, follow)) {
  while (file_ == -EINTR) file_ = fs.open(path_, follow);
  if (file_ < 0) refuse(path_, "opened", file_);
  Status status;
  const int result = fs_.status_of(file_, status);
  if (result == 0 && status.kind == Kind::file) {
    size_ = status.bytes;
    return;
  }
  (void)fs_.close(file_);
  if (result != 0) refuse(path_, "looked at", result);
  fail(ErrorKind::checkpoint, "{}: is no regular file", printable(path_));
}

FileReader::~FileReader() { (void)fs_.close(file_); }

std::size_t FileReader::read(void* to, std::size_t bytes) {
  const std::size_t done = read_at(to, bytes, at_);
  hasher_.add(to, done);
  at_ += done;
  return done;
}

std::size_t FileReader::read_at(void* to, std::size_t bytes, std::uint64_t offset) const {
  char* at = static_cast<char*>(to);
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t n = fs_.read_at(file_, at + done, std::min(bytes - done, file_piece), offset + done);
    if (n == -EINTR) continue;
    if (n < 0) refuse(path_, "read", n);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::string read_text_file(const std::string& path, std::size_t limit, FileSystem& fs, bool follow) {
  FileReader reader(path, follow, fs);
  std::string text;
  for (;;) {
    const std::size_t size = text.size();
    const std::uint64_t left = reader.size() > size ? reader.size() - size : 0;  // not for all files is it told
    text.resize(size + std::min({file_piece, limit + 1 - size, static_cast<std::size_t>(left) + 4096}));
    text.resize(size + reader.read(text.data() + size, text.size() - size));
    if (text.size() > limit)
      fail(ErrorKind::checkpoint, "{}: is longer than {}", printable(path), human_bytes(static_cast<double>(limit)));
    if (text.size() == size) return text;
  }
}

FileSum write_text_file(const std::string& path, std::string_view text, FileSystem& fs) {
  FileWriter writer(path, fs);
  writer.write(text.data(), text.size());
  return writer.finish();
}

void replace_text_file(const std::string& path, std::string_view text, FileSystem& fs) {
  const std::string folder = parent_of(path);
  const std::string temporary = folder + "/." + path.substr(path.rfind('/') + 1) + ".partial";
  (void)write_text_file(temporary, text, fs);
  rename_path(temporary, path, fs);
  sync_folder(folder, fs);
}

}  // namespace lockstep::files
