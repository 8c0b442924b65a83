#pragma once

// Declarations of every kernel in every implementation namespace, from the one list.
#include "kernels/table.hpp"

#define LOCKSTEP_DECLARE(kernel, Args) void kernel(const Exec& exec, const Args& args);
namespace lockstep::kernels {
namespace reference {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace cpu_baseline {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace cpu_avx2 {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace cpu_avx512 {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace emu {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace cuda {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
}  // namespace lockstep::kernels
#undef LOCKSTEP_DECLARE
