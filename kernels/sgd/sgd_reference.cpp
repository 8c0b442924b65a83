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
    for (std::size_t i = tile.begin; i < tile.begin + tile.count; ++i) {
      sgd_element(args.master[i], scalars.buffered ? args.momentum[i] : unused, gradient_at(args.grad, i), scalars);
      if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, i, args.master[i]);
    }
  }
}

}  // namespace lockstep::kernels::reference
