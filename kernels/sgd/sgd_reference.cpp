#include "core/error.hpp"
#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/sgd/sgd_rule.hpp"

namespace lockstep::kernels::reference {

void sgd(const Exec& /*exec*/, const SgdArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars =
        sgd_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.dampening),
                           args.nesterov != 0, args.state->applied == 1);
    require(!scalars.buffered || args.momentum != nullptr, "sgd: a group has momentum but there is no buffer for it");
    float unused = 0;
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      sgd_element(p, scalars.buffered ? args.momentum[tile.shard_begin + k] : unused, g, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
