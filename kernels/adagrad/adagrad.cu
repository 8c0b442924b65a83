// Bytes a parameter, one pass: gradient 4, master 4 + 4, sum 4 + 4 = 20; 22 with a 16-bit copy, 2 less with a 16-bit
// gradient. See kernels/device/update_walk.hpp.
#include "kernels/adagrad/adagrad_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/device/update_walk.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

struct AdagradRule {
  static constexpr int moments = 1;
  float* moment[moments];
  float eps;
  float initial;

  using Scalars = AdagradScalars<float>;
  __device__ __forceinline__ Scalars scalars(const GroupStep::Rounded& step, const StepState& state,
                                             float grad_factor) const {
    return adagrad_scalars(step, grad_factor, eps, initial, state.applied == 1);
  }
  __device__ __forceinline__ static bool uses_moments(const Scalars& /*scalars*/) { return true; }
  __device__ __forceinline__ static void element(float& p, float (&moment)[moments], float g, const Scalars& scalars) {
    adagrad_element(p, moment[0], g, scalars);
  }
};

}  // namespace

void adagrad(const Exec& exec, const AdagradArgs& args) {
  run_update(exec, args, AdagradRule{{args.sum}, args.eps, args.initial});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
