#include "safetensors/file.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep::safetensors {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian");

template <class T>
void widen(const std::vector<std::byte>& from, std::vector<float>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
    to[i] = static_cast<float>(value);
  }
}

}  // namespace

File::File(const std::string& path, bool follow, files::FileSystem& fs) : reader_(path, follow, fs) {
  unsigned char first[8] = {};
  const std::size_t got = reader_.read_at(first, sizeof first, 0);
  const std::uint64_t length = header_length(first, got < sizeof first ? got : reader_.size(), path);
  std::string text(static_cast<std::size_t>(length), '\0');
  if (reader_.read_at(text.data(), text.size(), sizeof first) != text.size())
    fail(ErrorKind::checkpoint, "{}: has become shorter while it was read", printable(path));
  header_ = parse_header(text, reader_.size() - sizeof first - length, path);
}

void File::read(const Tensor& tensor, std::uint64_t offset, void* to, std::size_t bytes) const {
  require(offset <= tensor.bytes() && bytes <= tensor.bytes() - offset, "safetensors: bytes that are not the tensor's");
  if (reader_.read_at(to, bytes, header_.data_begin + tensor.begin + offset) != bytes)
    fail(ErrorKind::checkpoint, "{}: has become shorter while it was read", printable(path()));
}

void File::read_floats(const Tensor& tensor,
                       const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) const {
  if (tensor.type != Type::f32 && tensor.type != Type::bf16 && tensor.type != Type::f16)
    fail(ErrorKind::checkpoint, "{}: {} is {}; weights may be F32, BF16 or F16", printable(path()),
         printable(tensor.name), to_string(tensor.type));
  const std::size_t each = bits_of(tensor.type) / 8;
  const std::uint64_t elements = tensor.bytes() / each, most = files::file_piece / sizeof(float);
  std::vector<std::byte> bytes;
  std::vector<float> values;
  for (std::uint64_t at = 0; at < elements; at += most) {
    values.resize(static_cast<std::size_t>(std::min(most, elements - at)));
    bytes.resize(values.size() * each);
    read(tensor, at * each, bytes.data(), bytes.size());
    if (tensor.type == Type::f32) widen<float>(bytes, values);
    if (tensor.type == Type::bf16) widen<bf16>(bytes, values);
    if (tensor.type == Type::f16) widen<f16>(bytes, values);
    visit(static_cast<std::int64_t>(at), static_cast<std::int64_t>(values.size()), values.data());
  }
}

Writer::Writer(const std::string& path, std::vector<Tensor> tensors, const std::map<std::string, std::string>& metadata,
               files::FileSystem& fs)
    : tensors_(std::move(tensors)), file_(path, fs) {
  const std::string first = lay_out(tensors_, metadata);
  left_ = tensors_.empty() ? 0 : tensors_.back().end;
  file_.write(first.data(), first.size());
}

void Writer::write(const void* data, std::size_t bytes) {
  require(bytes <= left_, "safetensors: more bytes than tensors");
  left_ -= bytes;
  file_.write(data, bytes);
}

files::FileSum Writer::finish() {
  require(left_ == 0, "safetensors: bytes are missing");
  return file_.finish();
}

}  // namespace lockstep::safetensors
