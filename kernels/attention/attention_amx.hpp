#pragma once

#include "kernels/attention/attention.hpp"
#include "kernels/cpu/isa_namespace.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {

/// bf16 attention in AMX tiles. False, and nothing done, where the instruction set or the CPU has none.
[[nodiscard]] bool amx_attention_forward(const Exec& exec, const AttentionForwardArgs& args);
[[nodiscard]] bool amx_attention_backward(const Exec& exec, const AttentionBackwardArgs& args);

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
