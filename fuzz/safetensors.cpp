#include <algorithm>

#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"
#include "safetensors/file.hpp"

namespace lockstep::fuzz {
namespace {

/// A header written anew for these tensors says the same of them, but for where they lie.
void check_layout(const safetensors::Header& header) {
  std::vector<safetensors::Tensor> tensors = header.tensors;
  const std::string first = safetensors::lay_out(tensors, header.metadata);
  const std::uint64_t data = tensors.empty() ? 0 : tensors.back().end;
  const safetensors::Header again = safetensors::parse_header(std::string_view(first).substr(8), data, "layout");
  promise(again.metadata == header.metadata, "a header written anew has other metadata");
  promise(again.tensors.size() == header.tensors.size(), "a header written anew has more or fewer tensors");
  for (const safetensors::Tensor& tensor : header.tensors) {
    const safetensors::Tensor* const same = again.find(tensor.name);
    promise(
        same != nullptr && same->type == tensor.type && same->shape == tensor.shape && same->bytes() == tensor.bytes(),
        "a header written anew has another tensor");
  }
}

}  // namespace

void safetensors(std::string_view input) {
  static InputFile file("input.safetensors");
  file.set(input);
  (void)accepts(file.path(), [&] {
    const safetensors::File read(file.path());
    const safetensors::Header& header = read.header();
    std::uint64_t end = header.data_begin;
    for (const safetensors::Tensor& tensor : header.tensors) {
      promise(header.data_begin + tensor.begin == end && tensor.end >= tensor.begin,
              "tensors that do not tile the file");
      end = header.data_begin + tensor.end;
      std::string bytes(tensor.bytes(), '\0');
      read.read(tensor, 0, bytes.data(), bytes.size());
      promise(bytes == input.substr(header.data_begin + tensor.begin, bytes.size()), "bytes of another place");
      if (tensor.type == safetensors::Type::f32 || tensor.type == safetensors::Type::bf16 ||
          tensor.type == safetensors::Type::f16)
        read.read_floats(tensor, [](std::int64_t, std::int64_t, const float*) {});
    }
    promise(end == input.size(), "bytes of the file that no tensor has");
    check_layout(header);
  });
}

}  // namespace lockstep::fuzz
