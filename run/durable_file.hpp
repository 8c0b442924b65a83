#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep::run {

// Files that must be whole after a crash, in bounded memory. Every error is ErrorKind::checkpoint and names the path
// (made printable), what was tried and the system's reason.

/// Bytes that are in memory at once, whatever a file's size.
inline constexpr std::size_t file_piece = std::size_t{4} << 20;

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
  explicit FileWriter(std::string path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();
  void write(const void* data, std::size_t bytes);
  /// Flushes to the disk and closes. Without it the file is not to be trusted.
  FileSum finish();

 private:
  std::string path_;
  int fd_;
  Hasher hasher_;
};

/// Reads a file front to back.
class FileReader {
 public:
  explicit FileReader(std::string path);
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  ~FileReader();
  /// How many bytes came: fewer than asked for only at the file's end.
  [[nodiscard]] std::size_t read(void* to, std::size_t bytes);
  /// Of everything read so far.
  [[nodiscard]] FileSum sum() const { return hasher_.sum(); }

 private:
  std::string path_;
  int fd_;
  Hasher hasher_;
};

/// A whole text file of at most `limit` bytes.
[[nodiscard]] std::string read_text_file(const std::string& path, std::size_t limit);

/// Puts a text file in place by one rename, durably: a reader finds the old text or the new one.
void replace_text_file(const std::string& path, std::string_view text);

}  // namespace lockstep::run
