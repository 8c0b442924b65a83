#include "kernels/adam/adam_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr unsigned max_blocks = 4096;  ///< blocks walk the tiles, so that any number of tiles is one launch
constexpr int vector = 4;              ///< elements a thread moves at once: 16 bytes of float

template <class G>
[[nodiscard]] __device__ Pack<float, vector> sum_of_sources(const GradSources& grad, std::size_t i) {
  Pack<float, vector> sum;
  for (std::int32_t k = 0; k < grad.count; ++k) {
    const auto source = *reinterpret_cast<const Pack<G, vector>*>(static_cast<const G*>(grad.source[k]) + i);
    for (int j = 0; j < vector; ++j) {
      const auto value = static_cast<float>(source.v[j]);
      sum.v[j] = k == 0 ? value : sum.v[j] + value;
    }
  }
  return sum;
}

__device__ void update_one(const AdamArgs& args, std::size_t i, const AdamScalars<float>& scalars) {
  adam_element(args.master[i], args.m[i], args.v[i], gradient_at(args.grad, i), scalars);
  if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, i, args.master[i]);
}

template <class G>
__global__ void __launch_bounds__(block_size) adam_kernel(AdamArgs args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = blockIdx.x; t < args.tile_count; t += gridDim.x) {
    const Tile tile = args.tiles[t];
    const AdamScalars<float> scalars = adam_scalars<float>(args.groups[tile.group], args.state->grad_factor,
                                                           static_cast<double>(args.eps), args.decoupled != 0);
    const std::size_t end = tile.begin + tile.count;
    // Whole vectors where the tile starts on one; a parameter's tail is left to single elements.
    const std::size_t vectors = tile.begin % vector == 0 ? tile.count / vector : 0;
    for (std::size_t n = threadIdx.x; n < vectors; n += block_size) {
      const std::size_t i = tile.begin + n * vector;
      auto& p = *reinterpret_cast<Pack<float, vector>*>(args.master + i);
      auto& m = *reinterpret_cast<Pack<float, vector>*>(args.m + i);
      auto& v = *reinterpret_cast<Pack<float, vector>*>(args.v + i);
      Pack<float, vector> new_p = p, new_m = m, new_v = v;
      const Pack<float, vector> g = sum_of_sources<G>(args.grad, i);
      for (int j = 0; j < vector; ++j) adam_element(new_p.v[j], new_m.v[j], new_v.v[j], g.v[j], scalars);
      p = new_p;
      m = new_m;
      v = new_v;
      if (args.param16 == nullptr) continue;
      Pack<std::uint16_t, vector> copy;
      for (int j = 0; j < vector; ++j)
        copy.v[j] = args.param16_dtype == DType::bf16 ? bf16(new_p.v[j]).bits : f16(new_p.v[j]).bits;
      *reinterpret_cast<Pack<std::uint16_t, vector>*>(static_cast<std::uint16_t*>(args.param16) + i) = copy;
    }
    for (std::size_t i = tile.begin + vectors * vector + threadIdx.x; i < end; i += block_size)
      update_one(args, i, scalars);
  }
}

}  // namespace

void adam(const Exec& exec, const AdamArgs& args) {
  const unsigned blocks = args.tile_count < max_blocks ? args.tile_count : max_blocks;
  with_element_type(args.grad.dtype,
                    [&]<class G>(G*) { launch(exec, adam_kernel<G>, dim3(blocks), dim3(block_size), 0, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
