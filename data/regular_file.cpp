#include "data/regular_file.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::data {

std::vector<std::uint8_t> read_bytes(const std::string& path, const std::string& key) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    fail(ErrorKind::config, "{}: {} is a directory, but a file is needed", key, printable(path));
  }
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    fail(ErrorKind::config, "{}: {} is a device or a pipe, but a file is needed", key, printable(path));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    fail(ErrorKind::data, "{}: cannot open {}: {} (the path is relative to the job file)", key, printable(path),
         errno == 0 ? "unknown error" : std::strerror(errno));
  }
  std::vector<std::uint8_t> bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (static_cast<std::size_t>(file.gcount()) != bytes.size()) {
    fail(ErrorKind::data, "{}: {} has {} bytes, but only {} could be read", key, printable(path), bytes.size(),
         file.gcount());
  }
  if (bytes.empty()) {
    fail(ErrorKind::data, "{}: {} is empty", key, printable(path));
  }
  return bytes;
}

std::string read_text(const std::string& path, const std::string& key) {
  const std::vector<std::uint8_t> bytes = read_bytes(path, key);
  return {bytes.begin(), bytes.end()};
}

}  // namespace lockstep::data
