#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::data {

/// The bytes of a file that key `key` of the job file names. ErrorKind::config if it is no file (a directory, a device,
/// a pipe), ErrorKind::data if it cannot be read or is empty; the message names the key.
[[nodiscard]] std::vector<std::uint8_t> read_bytes(const std::string& path, const std::string& key);
[[nodiscard]] std::string read_text(const std::string& path, const std::string& key);

}  // namespace lockstep::data
