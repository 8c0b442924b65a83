#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "files/file_system.hpp"

namespace lockstep::files {
namespace {

/// The system's answer, or -errno.
template <class T>
T answer(T result) {
  return result < 0 ? static_cast<T>(-errno) : result;
}

Status status_from(const struct stat& from) {
  Status status{.kind = Kind::other, .bytes = 0};
  if (S_ISDIR(from.st_mode)) status.kind = Kind::folder;
  if (S_ISREG(from.st_mode)) status = {.kind = Kind::file, .bytes = static_cast<std::uint64_t>(from.st_size)};
  return status;
}

class Disk final : public FileSystem {
 public:
  int create(const std::string& path) override {
    return answer(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  }
  // O_NONBLOCK: a named pipe in the place of a file must not make the program wait for a writer.
  int open(const std::string& path, bool follow) override {
    return answer(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW)));
  }
  ssize_t write(int file, const void* data, std::size_t bytes) override { return answer(::write(file, data, bytes)); }
  ssize_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) override {
    return answer(::pread(file, to, bytes, static_cast<off_t>(offset)));
  }
  int status_of(int file, Status& status) override {
    struct stat found = {};
    if (::fstat(file, &found) != 0) return -errno;
    status = status_from(found);
    return 0;
  }
  int sync(int file) override { return answer(::fsync(file)); }
  int close(int file) override { return answer(::close(file)); }

  int status(const std::string& path, bool follow, Status& status) override {
    struct stat found = {};
    status = {};
    if ((follow ? ::stat(path.c_str(), &found) : ::lstat(path.c_str(), &found)) != 0)
      return errno == ENOENT ? 0 : -errno;
    status = status_from(found);
    return 0;
  }
  int list(const std::string& folder, std::vector<std::string>& names) override {
    DIR* open = ::opendir(folder.c_str());
    if (open == nullptr) return -errno;
    errno = 0;
    for (const dirent* entry = ::readdir(open); entry != nullptr; entry = ::readdir(open)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int reason = errno;
    ::closedir(open);
    return -reason;
  }
  int make_folder(const std::string& path) override { return answer(::mkdir(path.c_str(), 0777)); }
  int rename(const std::string& from, const std::string& to) override {
    return answer(std::rename(from.c_str(), to.c_str()));
  }
  int unlink(const std::string& path) override { return answer(::unlink(path.c_str())); }
  int remove_folder(const std::string& path) override { return answer(::rmdir(path.c_str())); }
  int sync_folder(const std::string& path) override {
    const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -errno;
    const int result = answer(::fsync(folder));
    ::close(folder);
    return result;
  }
  int free_bytes(const std::string& path, std::uint64_t& bytes) override {
    struct statvfs found = {};
    if (::statvfs(path.c_str(), &found) != 0) return -errno;
    bytes = static_cast<std::uint64_t>(found.f_bavail) * found.f_frsize;
    return 0;
  }
};

}  // namespace

FileSystem& disk() {
  static Disk the_disk;
  return the_disk;
}

}  // namespace lockstep::files
