#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/lamb/lamb_rule.hpp"

namespace lockstep::kernels::reference {

void lamb(const Exec& /*exec*/, const LambArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  const auto scalars_of = [&](const Tile& tile) {
    return lamb_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.eps));
  };
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = scalars_of(tile);
    double p2[lamb_lanes] = {}, u2[lamb_lanes] = {};
    for (std::size_t k = 0; k < tile.count; ++k) {
      const float p = args.master[begin_in(tile, args.master_extent) + k];
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      const float u = lamb_moments(p, args.m[tile.shard_begin + k], args.v[tile.shard_begin + k], g, scalars);
      p2[k % lamb_lanes] += static_cast<double>(p) * static_cast<double>(p);
      u2[k % lamb_lanes] += static_cast<double>(u) * static_cast<double>(u);
    }
    args.squares[t] = {add_lanes(p2), add_lanes(u2)};
  }
  for (std::uint32_t j = 0; j < args.tensor_count; ++j) {
    const TileRun& run = args.tensors[j];
    const LambSquares sum = add_tiles(args.squares + run.first, run.count);
    const GroupStep& group = args.groups[args.tiles[run.first].group];
    const auto step = static_cast<float>(lamb_step(sum.p2, sum.u2, group, args.min_coeff, args.max_coeff));
    for (std::uint32_t t = run.first; t < run.first + run.count; ++t) args.steps[t] = step;
  }
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = scalars_of(tile);
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      lamb_apply(p, args.m[tile.shard_begin + k], args.v[tile.shard_begin + k], args.steps[t], scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
