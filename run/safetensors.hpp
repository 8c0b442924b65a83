#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "run/durable_file.hpp"

namespace lockstep::run {

/// A file of tensors as Hugging Face's models come: eight bytes with the header's length, the header, a JSON object of
/// tensor name -> dtype, shape and place, then the tensors' bytes, row-major and little-endian.
class SafetensorsReader {
 public:
  struct Entry {
    DType dtype = DType::f32;
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0;  ///< in the file
    std::uint64_t bytes = 0;
  };

  /// Reads the header. ErrorKind::checkpoint, with the file's name, for what cannot be read or is no such file, and for
  /// tensors that do not lie in it. Tensors of types that no kernel computes on (masks) are left out.
  explicit SafetensorsReader(std::string path);

  [[nodiscard]] const std::map<std::string, Entry>& entries() const { return entries_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  /// Elements of `entry` in order, as fp32, in pieces of bounded size: visit(first element, count, values).
  void read(const Entry& entry, const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) const;

 private:
  std::string path_;
  std::map<std::string, Entry> entries_;
};

/// Writes such a file of fp32 tensors, one after another.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
  };
  /// Writes the header for `tensors`, which follow in this order.
  SafetensorsWriter(const std::string& path, const std::vector<Tensor>& tensors);
  /// The next values of the tensors.
  void write(const float* values, std::int64_t count);
  /// Flushes to the disk and closes. Requires that all values have come.
  void finish();

 private:
  FileWriter file_;
  std::uint64_t left_ = 0;  ///< values
};

}  // namespace lockstep::run
