#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/update_walk.hpp"
#include "kernels/declare.hpp"
#include "kernels/lion/lion_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

template <class T16>
void update_strip(float* __restrict p, float* __restrict m, const float* __restrict g, T16* __restrict p16,
                  std::size_t count, const LionScalars<float> scalars) {
  const auto update = [&](std::size_t i) {
    lion_element(p[i], m[i], g[i], scalars);
    store_copy(p16, i, p[i]);
  };
  for_elements(count, update, p, m, g, p16);
}

template <class T16>
void update_tiles(const Exec& exec, const LionArgs& args) {
  const auto scalars_of = [&](const Tile& tile) {
    return lion_scalars<float>(args.groups[tile.group], args.state->grad_factor);
  };
  for_strips<T16>(exec, args, scalars_of, [&](const Strip<T16>& strip, const LionScalars<float>& scalars) {
    update_strip<T16>(args.master + strip.master, args.m + strip.shard, strip.g, strip.p16, strip.count, scalars);
  });
}

}  // namespace

void lion(const Exec& exec, const LionArgs& args) {
  if (args.state->skip != 0 || args.state->halt != Halt::none) return;
  with_copy_type(args, [&]<class T16>(T16*) { update_tiles<T16>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
