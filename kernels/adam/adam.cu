// Bytes a parameter, one pass: gradient 4, master 4 + 4, moments 2 x (4 + 4) = 28; 30 with a 16-bit copy, 2 less with a
// 16-bit gradient. See kernels/device/update_walk.hpp.
#include "kernels/adam/adam_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/device/update_walk.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

struct AdamRule {
  static constexpr int moments = 2;
  float* moment[moments];
  float eps;
  bool decoupled;

  using Scalars = AdamScalars<float>;
  __device__ __forceinline__ Scalars scalars(const GroupStep::Rounded& step, const StepState& /*state*/,
                                             float grad_factor) const {
    return adam_scalars(step, grad_factor, eps, decoupled);
  }
  __device__ __forceinline__ static bool uses_moments(const Scalars& /*scalars*/) { return true; }
  __device__ __forceinline__ static void element(float& p, float (&moment)[moments], float g, const Scalars& scalars) {
    adam_element(p, moment[0], moment[1], g, scalars);
  }
};

}  // namespace

void adam(const Exec& exec, const AdamArgs& args) {
  run_update(exec, args, AdamRule{{args.m, args.v}, args.eps, args.decoupled != 0});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
