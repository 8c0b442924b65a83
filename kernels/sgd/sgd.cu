#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/sgd/sgd_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;
constexpr unsigned max_blocks = 4096;  ///< blocks walk the tiles, so that any number of tiles is one launch

__global__ void __launch_bounds__(block_size) sgd_kernel(SgdArgs args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = blockIdx.x; t < args.tile_count; t += gridDim.x) {
    const Tile tile = args.tiles[t];
    const SgdScalars<float> scalars =
        sgd_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.dampening),
                           args.nesterov != 0, args.state->applied == 1);
    float* const master = args.master + begin_in(tile, args.master_extent);
    for (std::size_t k = threadIdx.x; k < tile.count; k += block_size) {
      float unused = 0;
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      sgd_element(master[k], scalars.buffered ? args.momentum[tile.shard_begin + k] : unused, g, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, master[k]);
    }
  }
}

}  // namespace

void sgd(const Exec& exec, const SgdArgs& args) {
  const unsigned blocks = args.tile_count < max_blocks ? args.tile_count : max_blocks;
  launch(exec, sgd_kernel, dim3(blocks), dim3(block_size), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
