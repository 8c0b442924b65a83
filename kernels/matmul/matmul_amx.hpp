#pragma once

#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/matmul/matmul.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {

/// The whole of args where it is the gradient of a weight, c [m, n] (+)= a^T b of bf16 with sums in fp32, and this CPU
/// multiplies in AMX tiles: the library, which reaches half of its usual rate here, is then twice as slow
/// (docs/performance.md). False, and nothing done, for every other product and CPU.
///
/// The order of every sum is fixed: bits do not depend on the number of threads.
[[nodiscard]] bool amx_weight_gradient(const Exec& exec, const MatmulArgs& args);

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
