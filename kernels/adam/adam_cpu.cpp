#include "kernels/adam/adam_rule.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/update_walk.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

template <class T16, bool decoupled>
void update_strip(float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g,
                  T16* __restrict p16, std::size_t count, AdamScalars<float> scalars) {
  scalars.decoupled = decoupled;  // a constant for the optimizer
  const auto update = [&](std::size_t i) {
    adam_element(p[i], m[i], v[i], g[i], scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, m, v, g, p16);
}

template <class T16>
void update_tiles(const Exec& exec, const AdamArgs& args) {
  const auto scalars_of = [&](const Tile& tile) {
    return adam_scalars<float>(args.groups[tile.group], args.state->grad_factor, static_cast<double>(args.eps),
                               args.decoupled != 0);
  };
  for_strips<T16>(exec, args, scalars_of, [&](const Strip<T16>& strip, const AdamScalars<float>& scalars) {
    float *p = args.master + strip.master, *m = args.m + strip.shard, *v = args.v + strip.shard;
    if (scalars.decoupled)
      update_strip<T16, true>(p, m, v, strip.g, strip.p16, strip.count, scalars);
    else
      update_strip<T16, false>(p, m, v, strip.g, strip.p16, strip.count, scalars);
  });
}

}  // namespace

void adam(const Exec& exec, const AdamArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  with_copy_type(args, [&]<class T16>(T16*) { update_tiles<T16>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
