#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/update_walk.hpp"
#include "kernels/declare.hpp"
#include "kernels/muon/muon_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

static_assert(strip_elements % muon_lanes == 0, "so that a strip's first element belongs to lane 0");

/// A strip that starts at lane 0.
void direction_strip(float* __restrict momentum, float* __restrict direction, const float* __restrict g,
                     std::size_t count, const MuonScalars<float> scalars, double* __restrict lane) {
  std::size_t i = 0;
  const auto element = [&](std::size_t k) {
    direction[i + k] = muon_direction_element(momentum[i + k], g[i + k], scalars);
    lane[k] = lane[k] + static_cast<double>(direction[i + k]) * static_cast<double>(direction[i + k]);
  };
  for (; i + muon_lanes <= count; i += muon_lanes) {
#pragma omp simd
    for (std::size_t k = 0; k < muon_lanes; ++k) element(k);
  }
  for (std::size_t k = 0; i + k < count; ++k) element(k);
}

template <class T16>
void apply_tile(float* __restrict p, const float* __restrict direction, T16* __restrict p16, std::size_t count,
                float ratio, const MuonScalars<float> scalars) {
  const auto update = [&](std::size_t i) {
    muon_apply_element(p[i], direction[i], ratio, scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, direction, p16);
}

constexpr std::size_t piece = 16384;  ///< elements that a thread takes at once

}  // namespace

void muon_direction(const Exec& exec, const MuonDirectionArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for_pieces(exec.threads, static_cast<std::int64_t>(args.tile_count), [&](std::int64_t t) {
    alignas(64) float buffer[strip_elements];
    alignas(64) double lane[muon_lanes] = {};
    const Tile& tile = args.tiles[t];
    const auto scalars = muon_scalars<float>(args.groups[tile.group], args.state->grad_factor, args.nesterov != 0);
    float* const direction = args.direction + (tile.begin - args.tiles[0].begin);
    for (std::size_t done = 0; done < tile.count; done += strip_elements) {
      const std::size_t count = tile.count - done < strip_elements ? tile.count - done : strip_elements;
      const float* g = gradient_strip(args.grad, begin_in(tile, args.grad.extent) + done, count, buffer);
      direction_strip(args.momentum + tile.shard_begin + done, direction + done, g, count, scalars, lane);
    }
    args.squares[t] = add_muon_lanes(lane);
  });
}

void muon_normalize(const Exec& exec, const MuonNormalizeArgs& args) {
  double lane[muon_lanes] = {};
  for (std::uint32_t t = 0; t < args.tile_count; ++t) lane[t % muon_lanes] = lane[t % muon_lanes] + args.squares[t];
  const float norm = muon_norm(add_muon_lanes(lane), args.eps);
  for_pieces(exec.threads, static_cast<std::int64_t>((args.count + piece - 1) / piece), [&](std::int64_t j) {
    const std::size_t begin = static_cast<std::size_t>(j) * piece;
    const std::size_t end = begin + piece < args.count ? begin + piece : args.count;
    float* const x = args.x;
#pragma omp simd
    for (std::size_t i = begin; i < end; ++i) x[i] = x[i] / norm;
  });
}

void muon_polynomial(const Exec& exec, const MuonPolynomialArgs& args) {
  for_pieces(exec.threads, args.n, [&](std::int64_t i) {
    float* const __restrict square = args.square + i * args.n;
    const float* const __restrict gram = args.gram + i * args.n;
#pragma omp simd
    for (std::int64_t j = 0; j < args.n; ++j)
      square[j] = muon_polynomial_element(square[j], gram[j], i == j, args.a, args.b, args.c);
  });
}

void muon_apply(const Exec& exec, const MuonApplyArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  with_copy_type(args, [&]<class T16>(T16*) {
    for_pieces(exec.threads, static_cast<std::int64_t>(args.tile_count), [&](std::int64_t t) {
      const Tile& tile = args.tiles[t];
      T16* const p16 =
          args.param16 == nullptr ? nullptr : static_cast<T16*>(args.param16) + begin_in(tile, args.param16_extent);
      apply_tile(args.master + begin_in(tile, args.master_extent), args.direction + (tile.begin - args.tiles[0].begin),
                 p16, tile.count, args.ratio,
                 muon_scalars<float>(args.groups[tile.group], args.state->grad_factor, true));
    });
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
