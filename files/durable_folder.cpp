#include "files/durable_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"
#include "files/durable_file.hpp"

namespace lockstep::files {
namespace {

Status status_of(const std::string& path, bool follow, FileSystem& fs) {
  Status status;
  if (const int result = fs.status(path, follow, status); result != 0) refuse(path, "looked up", result);
  return status;
}

}  // namespace

bool path_exists(const std::string& path, FileSystem& fs) { return status_of(path, false, fs).kind != Kind::absent; }

bool is_folder(const std::string& path, FileSystem& fs) { return status_of(path, true, fs).kind == Kind::folder; }

std::vector<std::string> names_in(const std::string& folder, FileSystem& fs) {
  std::vector<std::string> names;
  if (!path_exists(folder, fs)) return names;
  if (const int result = fs.list(folder, names); result != 0) refuse(folder, "listed", result);
  std::sort(names.begin(), names.end());
  return names;
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void make_folders(const std::string& path, FileSystem& fs) {
  if (path_exists(path, fs)) {
    if (!is_folder(path, fs))
      fail(ErrorKind::checkpoint, "{}: cannot be used as a folder: something else has this name", printable(path));
    return;
  }
  const std::string parent = parent_of(path);
  if (parent != path) make_folders(parent, fs);
  if (const int result = fs.make_folder(path); result != 0 && result != -EEXIST) refuse(path, "made", result);
  sync_folder(parent, fs);
}

void rename_path(const std::string& from, const std::string& to, FileSystem& fs) {
  if (const int result = fs.rename(from, to); result != 0) refuse(from, "renamed to " + printable(to), result);
}

void remove_path(const std::string& path, FileSystem& fs) {
  const Kind kind = status_of(path, false, fs).kind;
  if (kind == Kind::absent) return;
  if (kind == Kind::folder)
    for (const std::string& name : names_in(path, fs)) remove_path(path + "/" + name, fs);
  const int result = kind == Kind::folder ? fs.remove_folder(path) : fs.unlink(path);
  if (result != 0 && result != -ENOENT) refuse(path, "removed", result);
}

void sync_folder(const std::string& path, FileSystem& fs) {
  int result = fs.sync_folder(path);
  while (result == -EINTR) result = fs.sync_folder(path);
  // Some network file systems have nothing to flush here.
  if (result != 0 && result != -EINVAL) refuse(path, "flushed to the disk", result);
}

}  // namespace lockstep::files
