#pragma once

#include <functional>
#include <string>
#include <vector>

#include "files/durable_file.hpp"
#include "safetensors/header.hpp"

namespace lockstep::safetensors {

/// A safetensors file that is read by what its header says (safetensors/header.hpp: the rules). Bytes are read where
/// they are asked for; a file that has become shorter meanwhile is an error, not a signal. Errors:
/// ErrorKind::checkpoint with the file's name.
class File {
 public:
  /// Reads and checks the header. `follow`: also where `path` is a link to the file.
  explicit File(const std::string& path, bool follow = true, files::FileSystem& fs = files::disk());

  [[nodiscard]] const Header& header() const { return header_; }
  [[nodiscard]] const std::string& path() const { return reader_.path(); }
  /// Bytes [offset, offset + bytes) of a tensor.
  void read(const Tensor& tensor, std::uint64_t offset, void* to, std::size_t bytes) const;
  /// Elements of an F32, BF16 or F16 tensor in order, as fp32, in pieces of bounded size: visit(first element, count,
  /// values). ErrorKind::checkpoint for another type.
  void read_floats(const Tensor& tensor,
                   const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) const;

 private:
  files::FileReader reader_;
  Header header_;
};

/// Writes such a file front to back.
class Writer {
 public:
  /// Writes the header. The tensors' bytes follow in the order of tensors(), not of the argument.
  Writer(const std::string& path, std::vector<Tensor> tensors, const std::map<std::string, std::string>& metadata,
         files::FileSystem& fs = files::disk());

  [[nodiscard]] const std::vector<Tensor>& tensors() const { return tensors_; }
  /// The next bytes of the tensors.
  void write(const void* data, std::size_t bytes);
  /// Flushes to the disk and closes. Requires that all bytes have come.
  files::FileSum finish();

 private:
  std::vector<Tensor> tensors_;
  files::FileWriter file_;
  std::uint64_t left_ = 0;
};

}  // namespace lockstep::safetensors
