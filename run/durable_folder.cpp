#include "run/durable_folder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& path, const std::string& what, const std::string& reason) {
  fail(ErrorKind::checkpoint, "{}: cannot be {}: {}", printable(path), what, reason);
}

}  // namespace

bool path_exists(const std::string& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT) refuse(path, "looked up", std::strerror(errno));
  return false;
}

bool is_folder(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0) return S_ISDIR(status.st_mode);
  if (errno != ENOENT) refuse(path, "looked up", std::strerror(errno));
  return false;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!path_exists(folder)) return names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  if (error) refuse(folder, "listed", error.message());
  std::sort(names.begin(), names.end());
  return names;
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void make_folders(const std::string& path) {
  if (path_exists(path)) {
    if (!is_folder(path)) refuse(path, "used as a folder", "something else has this name");
    return;
  }
  const std::string parent = parent_of(path);
  if (parent != path) make_folders(parent);
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) refuse(path, "made", std::strerror(errno));
  sync_folder(parent);
}

void rename_path(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return;
  const int reason = errno;
  refuse(from, "renamed to " + printable(to), std::strerror(reason));
}

void remove_path(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) refuse(path, "removed", error.message());
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) refuse(path, "opened", std::strerror(errno));
  const int result = ::fsync(fd);
  const int reason = errno;
  ::close(fd);
  // Some network file systems have nothing to flush here.
  if (result != 0 && reason != EINVAL) refuse(path, "flushed to the disk", std::strerror(reason));
}

}  // namespace lockstep::run
