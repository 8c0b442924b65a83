#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::data {

/// An array of bytes as an IDX file holds it, the format of MNIST: two zero bytes, the type (0x08: unsigned bytes), the
/// number of dimensions, each dimension as a big-endian 32-bit number, then the elements, the last dimension fastest.
struct IdxArray {
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> values;  ///< as many as the product of the shape
};

/// Reads an IDX file of unsigned bytes, as it is or compressed by gzip. ErrorKind::data, with the file's name, if it
/// cannot be read, is of another type, or is shorter or longer than its header says.
[[nodiscard]] IdxArray read_idx(const std::string& path);

/// The header alone.
[[nodiscard]] std::vector<std::int64_t> read_idx_shape(const std::string& path);

}  // namespace lockstep::data
