#pragma once

#include <cstddef>
#include <string>

namespace lockstep::config {

/// The first `most` bytes of a file. Only of a file: a folder, a pipe or a device is refused before anything is read
/// from it, so nothing can hang.
/// Throws ErrorKind::config naming the path and what is there.
[[nodiscard]] std::string read_text_file(const std::string& path, std::size_t most);

}  // namespace lockstep::config
