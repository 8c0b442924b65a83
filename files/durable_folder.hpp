#pragma once

#include <string>
#include <vector>

#include "files/file_system.hpp"

namespace lockstep::files {

// Changes of folders that must survive a crash. An error of the system is never taken for an empty or missing folder:
// it is thrown as ErrorKind::checkpoint with the path (made printable), what was tried and the reason.

/// Whether something has this name. A link that leads nowhere counts.
[[nodiscard]] bool path_exists(const std::string& path, FileSystem& fs = disk());
/// Whether it is a folder, or a link to one.
[[nodiscard]] bool is_folder(const std::string& path, FileSystem& fs = disk());
/// Names in a folder, sorted; none if there is no such folder.
[[nodiscard]] std::vector<std::string> names_in(const std::string& folder, FileSystem& fs = disk());
/// The folder that holds `path`; "." for a bare name.
[[nodiscard]] std::string parent_of(const std::string& path);

/// Makes a folder and those above it that are missing, each entry flushed to the disk.
void make_folders(const std::string& path, FileSystem& fs = disk());
void rename_path(const std::string& from, const std::string& to, FileSystem& fs = disk());
/// With everything in it. Fine if nothing is there.
void remove_path(const std::string& path, FileSystem& fs = disk());
/// Makes what was made, renamed or removed in a folder durable.
void sync_folder(const std::string& path, FileSystem& fs = disk());

}  // namespace lockstep::files
