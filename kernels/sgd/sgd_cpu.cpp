#include "core/error.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/update_walk.hpp"
#include "kernels/declare.hpp"
#include "kernels/sgd/sgd_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

template <class T16>
void update_buffered(float* __restrict p, float* __restrict momentum, const float* __restrict g, T16* __restrict p16,
                     std::size_t count, SgdScalars<float> scalars) {
  scalars.buffered = true;  // a constant for the optimizer
  const auto update = [&](std::size_t i) {
    sgd_element(p[i], momentum[i], g[i], scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, momentum, g, p16);
}

template <class T16>
void update_unbuffered(float* __restrict p, const float* __restrict g, T16* __restrict p16, std::size_t count,
                       SgdScalars<float> scalars) {
  scalars.buffered = false;
  const auto update = [&](std::size_t i) {
    float unused = 0;
    sgd_element(p[i], unused, g[i], scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, g, p16);
}

template <class T16>
void update_tiles(const Exec& exec, const SgdArgs& args) {
  const auto scalars_of = [&](const Tile& tile) {
    return sgd_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.dampening),
                              args.nesterov != 0, args.state->applied == 1);
  };
  for_strips<T16>(exec, args, scalars_of, [&](const Strip<T16>& strip, const SgdScalars<float>& scalars) {
    float* p = args.master + strip.master;
    if (scalars.buffered)
      update_buffered(p, args.momentum + strip.shard, strip.g, strip.p16, strip.count, scalars);
    else
      update_unbuffered(p, strip.g, strip.p16, strip.count, scalars);
  });
}

}  // namespace

void sgd(const Exec& exec, const SgdArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  for (std::uint32_t t = 0; t < args.tile_count; ++t)
    require(args.momentum != nullptr || args.groups[args.tiles[t].group].momentum == 0,
            "sgd: a group has momentum but there is no buffer for it");
  with_copy_type(args, [&]<class T16>(T16*) { update_tiles<T16>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
