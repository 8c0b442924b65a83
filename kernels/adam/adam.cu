#include "kernels/adam/adam_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr unsigned max_blocks = 4096;  ///< blocks walk the tiles, so that any number of tiles is one launch
constexpr int vector = 4;              ///< elements a thread moves at once: 16 bytes of float

struct Floats {
  float v[vector];
};
[[nodiscard]] LOCKSTEP_HOST_DEVICE Floats operator+(Floats a, const Floats& b) {
  for (int j = 0; j < vector; ++j) a.v[j] = a.v[j] + b.v[j];
  return a;
}

template <class G>
[[nodiscard]] LOCKSTEP_HOST_DEVICE Floats gradient_vector(const GradSources& grad, std::size_t i) {
  return sum_of_sources<0, max_grad_sources>(grad.count, [&](int k) {
    const auto source = *reinterpret_cast<const Pack<G, vector>*>(static_cast<const G*>(grad.source[k]) + i);
    Floats values;
    for (int j = 0; j < vector; ++j) values.v[j] = static_cast<float>(source.v[j]);
    return values;
  });
}

template <class G>
__global__ void __launch_bounds__(block_size) adam_kernel(AdamArgs args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = blockIdx.x; t < args.tile_count; t += gridDim.x) {
    const Tile tile = args.tiles[t];
    const AdamScalars<float> scalars = adam_scalars<float>(args.groups[tile.group], args.state->grad_factor,
                                                           static_cast<double>(args.eps), args.decoupled != 0);
    const std::size_t grad = begin_in(tile, args.grad.extent), copy = begin_in(tile, args.param16_extent);
    float* const master = args.master + begin_in(tile, args.master_extent);
    float *const m = args.m + tile.shard_begin, *const v = args.v + tile.shard_begin;
    // Whole vectors where the tile starts on one in every buffer; a parameter's tail is left to single elements.
    const std::size_t vectors = tile.begin % vector == 0 && tile.shard_begin % vector == 0 ? tile.count / vector : 0;
    for (std::size_t n = threadIdx.x; n < vectors; n += block_size) {
      const std::size_t i = n * vector;
      auto& p4 = *reinterpret_cast<Pack<float, vector>*>(master + i);
      auto& m4 = *reinterpret_cast<Pack<float, vector>*>(m + i);
      auto& v4 = *reinterpret_cast<Pack<float, vector>*>(v + i);
      Pack<float, vector> new_p = p4, new_m = m4, new_v = v4;
      const Floats g = gradient_vector<G>(args.grad, grad + i);
      for (int j = 0; j < vector; ++j) adam_element(new_p.v[j], new_m.v[j], new_v.v[j], g.v[j], scalars);
      p4 = new_p;
      m4 = new_m;
      v4 = new_v;
      if (args.param16 == nullptr) continue;
      Pack<std::uint16_t, vector> rounded;
      for (int j = 0; j < vector; ++j)
        rounded.v[j] = args.param16_dtype == DType::bf16 ? bf16(new_p.v[j]).bits : f16(new_p.v[j]).bits;
      *reinterpret_cast<Pack<std::uint16_t, vector>*>(static_cast<std::uint16_t*>(args.param16) + copy + i) = rounded;
    }
    for (std::size_t i = vectors * vector + threadIdx.x; i < tile.count; i += block_size) {
      adam_element(master[i], m[i], v[i], gradient_at(args.grad, grad + i), scalars);
      if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, copy + i, master[i]);
    }
  }
}

}  // namespace

void adam(const Exec& exec, const AdamArgs& args) {
  const unsigned blocks = args.tile_count < max_blocks ? args.tile_count : max_blocks;
  with_element_type(args.grad.dtype,
                    [&]<class G>(G*) { launch(exec, adam_kernel<G>, dim3(blocks), dim3(block_size), 0, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
