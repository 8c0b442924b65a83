#include "kernels/decide/decide_rule.hpp"
#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

__global__ void decide_kernel(DecideArgs args) { decide_step(args); }

}  // namespace

void decide(const Exec& exec, const DecideArgs& args) { launch(exec, decide_kernel, dim3(1), dim3(1), 0, args); }

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
