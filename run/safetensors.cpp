#include "run/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "core/text.hpp"
#include "kernels/element.hpp"

namespace lockstep::run {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are little-endian");

constexpr std::uint64_t longest_header = std::uint64_t{100} << 20;  // the format's own limit
constexpr std::int64_t piece_elements = std::int64_t{1} << 20;

std::optional<DType> dtype_of(const std::string& name) {
  if (name == "F32") return DType::f32;
  if (name == "BF16") return DType::bf16;
  if (name == "F16") return DType::f16;
  return std::nullopt;
}

std::ifstream opened(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file)
    fail(ErrorKind::checkpoint, "{}: cannot be opened: {}", printable(path),
         errno == 0 ? "unknown error" : std::strerror(errno));
  return file;
}

}  // namespace

SafetensorsReader::SafetensorsReader(std::string path) : path_(std::move(path)) {
  const std::string name = printable(path_);
  std::ifstream file = opened(path_);
  file.seekg(0, std::ios::end);
  const auto size = static_cast<std::uint64_t>(file.tellg());
  file.seekg(0);
  std::uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), sizeof length);
  if (!file || length > longest_header || length > size - sizeof length)
    fail(ErrorKind::checkpoint, "{}: is no safetensors file, or a damaged one: its header does not lie in it", name);
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(text.data(), static_cast<std::streamsize>(length));
  const auto header = nlohmann::json::parse(text, nullptr, false);
  if (!file || !header.is_object())
    fail(ErrorKind::checkpoint, "{}: is no safetensors file, or a damaged one: its header is no JSON object", name);
  const std::uint64_t data = sizeof length + length;
  try {
    for (const auto& [key, value] : header.items()) {
      if (key == "__metadata__") continue;
      const std::optional<DType> dtype = dtype_of(value.at("dtype").get<std::string>());
      if (!dtype) continue;
      Entry entry{.dtype = *dtype, .shape = value.at("shape").get<std::vector<std::int64_t>>(), .begin = 0, .bytes = 0};
      const auto offsets = value.at("data_offsets").get<std::array<std::uint64_t, 2>>();
      std::uint64_t bytes = size_of(*dtype);
      for (const std::int64_t dimension : entry.shape) {
        if (dimension < 0 || (dimension > 0 && bytes > size / static_cast<std::uint64_t>(dimension)))
          fail(ErrorKind::checkpoint, "{}: {} has a shape that does not fit into the file", name, printable(key));
        bytes *= static_cast<std::uint64_t>(dimension);
      }
      if (offsets[1] < offsets[0] || offsets[1] - offsets[0] != bytes || offsets[1] > size - data)
        fail(ErrorKind::checkpoint, "{}: {} does not lie in the file as its header says", name, printable(key));
      entry.begin = data + offsets[0];
      entry.bytes = bytes;
      entries_.emplace(key, std::move(entry));
    }
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::checkpoint, "{}: its header is damaged: {}", name, error.what());
  }
}

void SafetensorsReader::read(const Entry& entry,
                             const std::function<void(std::int64_t, std::int64_t, const float*)>& visit) const {
  std::ifstream file = opened(path_);
  file.seekg(static_cast<std::streamoff>(entry.begin));
  const auto elements = static_cast<std::int64_t>(entry.bytes / size_of(entry.dtype));
  std::vector<std::byte> bytes;
  std::vector<float> values;
  for (std::int64_t at = 0; at < elements; at += piece_elements) {
    const std::int64_t count = std::min(piece_elements, elements - at);
    bytes.resize(static_cast<std::size_t>(count) * size_of(entry.dtype));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) fail(ErrorKind::checkpoint, "{}: cannot be read to its end", printable(path_));
    values.resize(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = kernels::load_element(bytes.data(), entry.dtype, i);
    visit(at, count, values.data());
  }
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<Tensor>& tensors) : file_(path) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t end = 0;
  for (const Tensor& tensor : tensors) {
    std::uint64_t elements = 1;
    for (const std::int64_t dimension : tensor.shape) elements *= static_cast<std::uint64_t>(dimension);
    const std::uint64_t bytes = elements * sizeof(float);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
    left_ += elements;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the tensors lie on 8-byte boundaries
  const std::uint64_t length = text.size();
  file_.write(&length, sizeof length);
  file_.write(text.data(), text.size());
}

void SafetensorsWriter::write(const float* values, std::int64_t count) {
  require(static_cast<std::uint64_t>(count) <= left_, "SafetensorsWriter: more values than tensors");
  left_ -= static_cast<std::uint64_t>(count);
  file_.write(values, static_cast<std::size_t>(count) * sizeof(float));
}

void SafetensorsWriter::finish() {
  require(left_ == 0, "SafetensorsWriter: values are missing");
  (void)file_.finish();
}

}  // namespace lockstep::run
