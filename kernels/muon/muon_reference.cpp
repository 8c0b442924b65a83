#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/muon/muon_rule.hpp"

namespace lockstep::kernels::reference {

void muon_direction(const Exec& /*exec*/, const MuonDirectionArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = muon_scalars<float>(args.groups[tile.group], args.state->grad_factor, args.nesterov != 0);
    float* const direction = args.direction + (tile.begin - args.tiles[0].begin);
    double lane[muon_lanes] = {};
    for (std::size_t k = 0; k < tile.count; ++k) {
      const float g = gradient_at(args.grad, begin_in(tile, args.grad.extent) + k);
      direction[k] = muon_direction_element(args.momentum[tile.shard_begin + k], g, scalars);
      lane[k % muon_lanes] += static_cast<double>(direction[k]) * static_cast<double>(direction[k]);
    }
    args.squares[t] = add_muon_lanes(lane);
  }
}

void muon_normalize(const Exec& /*exec*/, const MuonNormalizeArgs& args) {
  double lane[muon_lanes] = {};
  for (std::uint32_t t = 0; t < args.tile_count; ++t) lane[t % muon_lanes] += args.squares[t];
  const float norm = muon_norm(add_muon_lanes(lane), args.eps);
  for (std::size_t i = 0; i < args.count; ++i) args.x[i] = args.x[i] / norm;
}

void muon_polynomial(const Exec& /*exec*/, const MuonPolynomialArgs& args) {
  for (std::int64_t i = 0; i < args.n; ++i)
    for (std::int64_t j = 0; j < args.n; ++j)
      args.square[i * args.n + j] = muon_polynomial_element(args.square[i * args.n + j], args.gram[i * args.n + j],
                                                            i == j, args.a, args.b, args.c);
}

void muon_apply(const Exec& /*exec*/, const MuonApplyArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t) {
    const Tile& tile = args.tiles[t];
    const auto scalars = muon_scalars<float>(args.groups[tile.group], args.state->grad_factor, true);
    const float* const direction = args.direction + (tile.begin - args.tiles[0].begin);
    for (std::size_t k = 0; k < tile.count; ++k) {
      float& p = args.master[begin_in(tile, args.master_extent) + k];
      muon_apply_element(p, direction[k], args.ratio, scalars);
      if (args.param16 != nullptr)
        store_element(args.param16, args.param16_dtype, begin_in(tile, args.param16_extent) + k, p);
    }
  }
}

}  // namespace lockstep::kernels::reference
