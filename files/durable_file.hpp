#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "files/file_system.hpp"

namespace lockstep::files {

// Files that must be whole after a crash, in bounded memory. Every error is ErrorKind::checkpoint and names the path
// (made printable), what was tried and the system's reason.

/// Bytes that are in memory at once, whatever a file's size.
inline constexpr std::size_t file_piece = std::size_t{4} << 20;

/// The disk is full, a quota is used up, or the device has failed (ENOSPC, EDQUOT, EIO): the one kind of error that
/// training survives, because the next save may find it mended.
class DiskTrouble : public Error {
 public:
  explicit DiskTrouble(const std::string& what) : Error(ErrorKind::checkpoint, what) {}
};

/// Throws "PATH: cannot be WHAT: reason"; `result` is -errno.
[[noreturn]] void refuse(const std::string& path, std::string_view what, std::int64_t result);

/// What a manifest knows of a file.
struct FileSum {
  std::uint64_t bytes = 0;
  std::string xxh3_128;  ///< 32 hex digits
  bool operator==(const FileSum&) const = default;
};

/// XXH3-128 of bytes that come in pieces.
class Hasher {
 public:
  Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  ~Hasher();
  void add(const void* data, std::size_t bytes);
  [[nodiscard]] FileSum sum() const;

 private:
  void* state_;
  std::uint64_t bytes_ = 0;
};

/// 32 hex digits.
[[nodiscard]] std::string hash_of(std::string_view text);

/// Writes a new file front to back.
class FileWriter {
 public:
  explicit FileWriter(std::string path, FileSystem& fs = disk());
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();
  void write(const void* data, std::size_t bytes);
  /// Flushes to the disk and closes. Without it the file is not to be trusted.
  FileSum finish();

 private:
  FileSystem& fs_;
  std::string path_;
  int file_;
  Hasher hasher_;
};

/// Reads a regular file front to back.
class FileReader {
 public:
  /// `follow`: also where the name is a link to the file.
  explicit FileReader(std::string path, bool follow = true, FileSystem& fs = disk());
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  ~FileReader();
  /// How many bytes came: fewer than asked for only at the file's end.
  [[nodiscard]] std::size_t read(void* to, std::size_t bytes);
  /// The same from anywhere; it neither moves read() nor counts for sum().
  [[nodiscard]] std::size_t read_at(void* to, std::size_t bytes, std::uint64_t offset) const;
  /// When it was opened.
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// Of everything that read() has given so far.
  [[nodiscard]] FileSum sum() const { return hasher_.sum(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  FileSystem& fs_;
  std::string path_;
  int file_;
  std::uint64_t size_ = 0;
  std::uint64_t at_ = 0;
  Hasher hasher_;
};

/// A whole text file of at most `limit` bytes. `follow`: also where the name is a link to the file.
[[nodiscard]] std::string read_text_file(const std::string& path, std::size_t limit, FileSystem& fs = disk(),
                                         bool follow = true);

/// A new text file, flushed to the disk.
FileSum write_text_file(const std::string& path, std::string_view text, FileSystem& fs = disk());

/// Puts a text file in place by one rename, durably: a reader finds the old text or the new one.
void replace_text_file(const std::string& path, std::string_view text, FileSystem& fs = disk());

}  // namespace lockstep::files
