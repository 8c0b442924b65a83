#pragma once

// Declarations of every kernel in every implementation namespace, from the one list.
#include "kernels/table.hpp"

#define LOCKSTEP_DECLARE(kernel, Args) void kernel(const Exec& exec, const Args& args);
#define LOCKSTEP_DECLARE_SCRATCH(kernel, Args) std::size_t kernel##_scratch(const Args& args) noexcept;
namespace lockstep::kernels {
namespace reference {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
}
namespace cpu_baseline {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_DECLARE_SCRATCH)
}  // namespace cpu_baseline
namespace cpu_avx2 {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_DECLARE_SCRATCH)
}  // namespace cpu_avx2
namespace cpu_avx512 {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_DECLARE_SCRATCH)
}  // namespace cpu_avx512
namespace emu {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_DECLARE_SCRATCH)
}  // namespace emu
namespace cuda {
LOCKSTEP_KERNELS(LOCKSTEP_DECLARE)
LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_DECLARE_SCRATCH)
}  // namespace cuda
}  // namespace lockstep::kernels
#undef LOCKSTEP_DECLARE
#undef LOCKSTEP_DECLARE_SCRATCH
