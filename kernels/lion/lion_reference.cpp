#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/lion/lion_rule.hpp"

namespace lockstep::kernels::reference {

void lion(const Exec& /*exec*/, const LionArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = lion_scalars<float>(args.groups[tile.group], args.state->grad_factor);
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      lion_element(p, args.m[tile.shard_begin + k], g, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
