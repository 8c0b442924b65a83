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
    for (std::size_t i = tile.begin; i < tile.begin + tile.count; ++i) {
      adam_element(args.master[i], args.m[i], args.v[i], gradient_at(args.grad, i), scalars);
      if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, i, args.master[i]);
    }
  }
}

}  // namespace lockstep::kernels::reference
