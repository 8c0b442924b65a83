#include "data/idx.hpp"

#include <zlib.h>

#include <algorithm>

#include "fuzz/target.hpp"
#include "fuzz/targets.hpp"

namespace lockstep::fuzz {
namespace {

void read(const InputFile& file) {
  std::vector<std::int64_t> shape;
  const bool headed = accepts(file.path(), [&] { shape = data::read_idx_shape(file.path()); });
  (void)accepts(file.path(), [&] {
    const data::IdxArray array = data::read_idx(file.path());
    promise(headed && array.shape == shape, "an array whose header alone is refused or has another shape");
    std::int64_t elements = 1;
    for (const std::int64_t n : array.shape) elements *= n;
    promise(static_cast<std::int64_t>(array.values.size()) == elements, "more or fewer elements than the shape has");
  });
}

/// As gzip writes it.
std::string compressed(std::string_view bytes) {
  z_stream stream{};
  require(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK, "deflateInit2");
  std::string out(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  require(deflate(&stream, Z_FINISH) == Z_STREAM_END, "deflate");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace

void idx(std::string_view input) {
  static InputFile file("input-idx3-ubyte");
  file.set(input);
  read(file);
}

void idx_gz(std::string_view input) {
  if (input.empty()) return;
  static InputFile file("input-idx3-ubyte.gz");
  std::string bytes = compressed(input.substr(1));
  bytes.resize(bytes.size() - std::min<std::size_t>(bytes.size(), static_cast<unsigned char>(input[0])));
  file.set(bytes);
  read(file);
}

}  // namespace lockstep::fuzz
