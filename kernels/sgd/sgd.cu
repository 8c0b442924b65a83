// Bytes a parameter, one pass: gradient 4, master 4 + 4 = 12; with momentum 8 more, with a 16-bit copy 2 more. See
// kernels/device/update_walk.hpp.
#include "kernels/declare.hpp"
#include "kernels/device/update_walk.hpp"
#include "kernels/sgd/sgd_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

struct SgdRule {
  static constexpr int moments = 1;
  float* moment[moments];
  float undamped;
  bool nesterov;

  using Scalars = SgdScalars<float>;
  __device__ __forceinline__ Scalars scalars(const GroupStep::Rounded& step, const StepState& state,
                                             float grad_factor) const {
    return sgd_scalars(step, grad_factor, undamped, nesterov, state.applied == 1);
  }
  __device__ __forceinline__ static bool uses_moments(const Scalars& scalars) { return scalars.buffered; }
  __device__ __forceinline__ static void element(float& p, float (&moment)[moments], float g, const Scalars& scalars) {
    sgd_element(p, moment[0], g, scalars);
  }
};

}  // namespace

void sgd(const Exec& exec, const SgdArgs& args) {
  const auto undamped = static_cast<float>(1.0 - static_cast<double>(args.dampening));
  run_update(exec, args, SgdRule{{args.momentum}, undamped, args.nesterov != 0});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
