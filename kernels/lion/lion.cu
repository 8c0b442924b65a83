// Bytes a parameter, one pass: gradient 4, master 4 + 4, moment 4 + 4 = 20; 22 with a 16-bit copy, 2 less with a 16-bit
// gradient. See kernels/device/update_walk.hpp.
#include "kernels/declare.hpp"
#include "kernels/device/update_walk.hpp"
#include "kernels/lion/lion_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

struct LionRule {
  static constexpr int moments = 1;
  float* moment[moments];

  using Scalars = LionScalars<float>;
  __device__ __forceinline__ Scalars scalars(const GroupStep::Rounded& step, const StepState& /*state*/,
                                             float grad_factor) const {
    return lion_scalars(step, grad_factor);
  }
  __device__ __forceinline__ static bool uses_moments(const Scalars& /*scalars*/) { return true; }
  __device__ __forceinline__ static void element(float& p, float (&moment)[moments], float g, const Scalars& scalars) {
    lion_element(p, moment[0], g, scalars);
  }
};

}  // namespace

void lion(const Exec& exec, const LionArgs& args) { run_update(exec, args, LionRule{{args.m}}); }

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
