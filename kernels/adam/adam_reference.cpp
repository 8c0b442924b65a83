#include "kernels/adam/adam_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::reference {

void adam(const Exec& /*exec*/, const AdamArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = adam_scalars<float>(args.groups[tile.group], args.state->grad_factor,
                                             static_cast<double>(args.eps), args.decoupled != 0);
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      adam_element(p, args.m[tile.shard_begin + k], args.v[tile.shard_begin + k], g, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
