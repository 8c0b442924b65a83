#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/update_walk.hpp"
#include "kernels/declare.hpp"
#include "kernels/lamb/lamb_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

static_assert(strip_elements % lamb_lanes == 0, "so that a strip's first element belongs to lane 0");

LambScalars<float> scalars_of(const LambArgs& args, const Tile& tile) {
  return lamb_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.eps));
}

double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

/// Updates the moments of a strip that starts at lane 0 and adds its squares.
void first_pass(const float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g,
                std::size_t count, const LambScalars<float> scalars, double* __restrict p2, double* __restrict u2) {
  std::size_t i = 0;
  for (; i + lamb_lanes <= count; i += lamb_lanes) {
    for (std::size_t line = i; line < i + lamb_lanes; line += update_block) {
      prefetch_block(p, line);
      prefetch_block(m, line);
      prefetch_block(v, line);
      prefetch_block(g, line);
    }
#pragma omp simd
    for (std::size_t k = 0; k < lamb_lanes; ++k) {
      const float u = lamb_moments(p[i + k], m[i + k], v[i + k], g[i + k], scalars);
      p2[k] = p2[k] + square(p[i + k]);
      u2[k] = u2[k] + square(u);
    }
  }
  for (std::size_t k = 0; i + k < count; ++k) {
    const float u = lamb_moments(p[i + k], m[i + k], v[i + k], g[i + k], scalars);
    p2[k] = p2[k] + square(p[i + k]);
    u2[k] = u2[k] + square(u);
  }
}

LambSquares first_pass(const LambArgs& args, const Tile& tile) {
  alignas(64) float buffer[strip_elements];
  alignas(64) double p2[lamb_lanes] = {}, u2[lamb_lanes] = {};
  const LambScalars<float> scalars = scalars_of(args, tile);
  for (std::size_t done = 0; done < tile.count; done += strip_elements) {
    const std::size_t count = tile.count - done < strip_elements ? tile.count - done : strip_elements;
    const float* g = gradient_strip(args.grad, begin_in(tile, args.grad.extent) + done, count, buffer);
    const std::size_t shard = tile.shard_begin + done;
    first_pass(args.master + begin_in(tile, args.master_extent) + done, args.m + shard, args.v + shard, g, count,
               scalars, p2, u2);
  }
  return {add_lanes(p2), add_lanes(u2)};
}

template <class T16>
void second_pass(float* __restrict p, const float* __restrict m, const float* __restrict v, T16* __restrict p16,
                 std::size_t count, float step, const LambScalars<float> scalars) {
  const auto update = [&](std::size_t i) {
    lamb_apply(p[i], m[i], v[i], step, scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, m, v, p16);
}

}  // namespace

void lamb(const Exec& exec, const LambArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for_pieces(exec.threads, static_cast<std::int64_t>(args.tile_count),
             [&](std::int64_t t) { args.squares[t] = first_pass(args, args.tiles[t]); });
  for (std::uint32_t j = 0; j < args.tensor_count; ++j) {
    const TileRun& run = args.tensors[j];
    const LambSquares sum = add_tiles(args.squares + run.first, run.count);
    const GroupStep& group = args.groups[args.tiles[run.first].group];
    const auto step = static_cast<float>(lamb_step(sum.p2, sum.u2, group, args.min_coeff, args.max_coeff));
    for (std::uint32_t t = run.first; t < run.first + run.count; ++t) args.steps[t] = step;
  }
  with_copy_type(args, [&]<class T16>(T16*) {
    for_pieces(exec.threads, static_cast<std::int64_t>(args.tile_count), [&](std::int64_t t) {
      const Tile& tile = args.tiles[t];
      T16* const p16 =
          args.param16 == nullptr ? nullptr : static_cast<T16*>(args.param16) + begin_in(tile, args.param16_extent);
      second_pass(args.master + begin_in(tile, args.master_extent), args.m + tile.shard_begin,
                  args.v + tile.shard_begin, p16, tile.count, args.steps[t], scalars_of(args, tile));
    });
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
