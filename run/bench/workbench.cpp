#include "run/bench/workbench.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace lockstep::run::bench {
namespace {

/// Prime, so that a pattern that is laid down again and again meets no power of two.
constexpr std::size_t pattern_elements = 1'048'573;

template <class T>
void write_pattern(void* to, std::size_t count, float scale) {
  for (std::size_t i = 0; i < count; ++i) {
    const double uniform = uniform_from(random_at(1, RngStream::synthetic, 3, i).word[0]);
    static_cast<T*>(to)[i] = T(scale * (2 * static_cast<float>(uniform) - 1));
  }
}

}  // namespace

Workbench::Workbench(RankContext& rank)
    : device_(*rank.place.device),
      table_(*rank.place.kernels),
      threads_(rank.place.threads),
      context_(table_, device_),
      stream_(device_.make_stream()) {}

Workbench::~Workbench() {
  (void)device_.try_synchronize(stream_);
  device_.destroy(stream_);
}

Exec Workbench::exec() const {
  return {.table = &table_, .device = &device_, .stream = stream_, .threads = threads_, .context = context_.get()};
}

void* Workbench::numbers(std::size_t count, DType dtype, float scale) {
  auto* data = memory<std::byte>(count * size_of(dtype));
  const std::size_t piece = std::min(count, pattern_elements);
  const Pinned<std::byte> pattern(device_, std::max<std::size_t>(1, piece * size_of(dtype)));
  switch (dtype) {
    case DType::f32:
      write_pattern<float>(pattern.data(), piece, scale);
      break;
    case DType::bf16:
      write_pattern<bf16>(pattern.data(), piece, scale);
      break;
    case DType::f16:
      write_pattern<f16>(pattern.data(), piece, scale);
      break;
    default:
      fail(ErrorKind::internal, "Workbench: no numbers of type {}", to_string(dtype));
  }
  for (std::size_t first = 0; first < count; first += piece)
    device_.copy(data + first * size_of(dtype), pattern.data(), std::min(piece, count - first) * size_of(dtype),
                 stream_);
  device_.synchronize(stream_);
  return data;
}

void Workbench::to_device(void* to, const void* from, std::size_t bytes) {
  device_.copy(to, from, bytes, stream_);
  device_.synchronize(stream_);
}

}  // namespace lockstep::run::bench
