#include "kernels/adagrad/adagrad_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::reference {

void adagrad(const Exec& /*exec*/, const AdagradArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars =
        adagrad_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.eps),
                               static_cast<double>(args.initial), args.state->applied == 1);
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      adagrad_element(p, args.sum[tile.shard_begin + k], g, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
