#include "kernels/adam/adam_rule.hpp"
#include "kernels/cpu/grad_strip.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

struct NoCopy {};

constexpr std::size_t block = 64;  ///< elements between prefetches: four cache lines of each float buffer

/// One strip: g has the gradient of its elements, p16 their 16-bit copy or nothing.
template <class T16, bool decoupled>
void update_strip(float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g,
                  T16* __restrict p16, std::size_t count, AdamScalars<float> scalars) {
  scalars.decoupled = decoupled;  // a constant for the optimizer
  const auto update = [&](std::size_t i) {
    adam_element(p[i], m[i], v[i], g[i], scalars);
    if constexpr (!__is_same(T16, NoCopy)) p16[i] = T16(p[i]);
  };
  std::size_t i = 0;
  for (; i + block <= count; i += block) {
    for (std::size_t line = i; line < i + block; line += 16) {
      prefetch_line(p + line);
      prefetch_line(m + line);
      prefetch_line(v + line);
      prefetch_line(g + line);
    }
    if constexpr (!__is_same(T16, NoCopy))
      for (std::size_t line = i; line < i + block; line += 32) prefetch_line(p16 + line);
#pragma omp simd
    for (std::size_t j = i; j < i + block; ++j) update(j);
  }
#pragma omp simd
  for (std::size_t j = i; j < count; ++j) update(j);
}

template <class T16, bool decoupled>
void update_tile(const AdamArgs& args, const Tile& tile) {
  alignas(64) float buffer[strip_elements];
  const AdamScalars<float> scalars =
      adam_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.eps), decoupled);
  const std::size_t end = tile.begin + tile.count;
  for (std::size_t i = tile.begin; i < end; i += strip_elements) {
    const std::size_t count = end - i < strip_elements ? end - i : strip_elements;
    const float* g = gradient_strip(args.grad, i, count, buffer);
    T16* p16 = args.param16 == nullptr ? nullptr : static_cast<T16*>(args.param16) + i;
    update_strip<T16, decoupled>(args.master + i, args.m + i, args.v + i, g, p16, count, scalars);
  }
}

template <class T16>
void update_tiles(const Exec& exec, const AdamArgs& args) {
  const auto count = static_cast<std::int64_t>(args.tile_count);
#pragma omp parallel for schedule(static) num_threads(exec.threads) if (exec.threads > 1 && count > 1)
  for (std::int64_t t = 0; t < count; ++t) {
    if (args.decoupled != 0)
      update_tile<T16, true>(args, args.tiles[t]);
    else
      update_tile<T16, false>(args, args.tiles[t]);
  }
}

}  // namespace

void adam(const Exec& exec, const AdamArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  if (args.param16 == nullptr)
    update_tiles<NoCopy>(exec, args);
  else if (args.param16_dtype == DType::bf16)
    update_tiles<bf16>(exec, args);
  else
    update_tiles<f16>(exec, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
