#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::files {

/// What a name stands for.
enum class Kind { absent, file, folder, other };

struct Status {
  Kind kind = Kind::absent;
  std::uint64_t bytes = 0;  ///< of a file
};

/// Every operation on files that must be whole after a crash, as the system offers it. Above this interface nothing of
/// a checkpoint touches the disk, so a test can put another disk here: one that loses power after any operation, or
/// that is full.
///
/// Calls return what the system's return, and -errno where those fail. A call may do less than it was asked to (a short
/// write, EINTR): the caller goes on. Descriptors are this object's own numbers. Thread-safe.
class FileSystem {
 public:
  FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;
  virtual ~FileSystem() = default;

  /// A new, empty file for writing front to back; what had the name is emptied.
  virtual int create(const std::string& path) = 0;
  /// For reading. Without `follow` a link in the place of the file itself is refused (ELOOP).
  virtual int open(const std::string& path, bool follow) = 0;
  virtual ssize_t write(int file, const void* data, std::size_t bytes) = 0;
  virtual ssize_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) = 0;
  /// What an open file is and how long.
  virtual int status_of(int file, Status& status) = 0;
  /// What was written is on the disk when this returns 0.
  virtual int sync(int file) = 0;
  virtual int close(int file) = 0;

  /// Kind::absent, and 0, where nothing has the name. `follow`: of what a link leads to.
  virtual int status(const std::string& path, bool follow, Status& status) = 0;
  /// The names in a folder, in no order.
  virtual int list(const std::string& folder, std::vector<std::string>& names) = 0;
  virtual int make_folder(const std::string& path) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int remove_folder(const std::string& path) = 0;
  /// The entries of a folder are on the disk when this returns 0.
  virtual int sync_folder(const std::string& path) = 0;
  /// Bytes that may still be written where `path` lies.
  virtual int free_bytes(const std::string& path, std::uint64_t& bytes) = 0;
};

/// The machine's.
[[nodiscard]] FileSystem& disk();

}  // namespace lockstep::files
