// One table for each instruction set: this file is compiled once for each (cmake/lockstep.cmake).
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/guarded.hpp"
#include "kernels/matmul/library_context.hpp"

#define LOCKSTEP_TABLE_NS LOCKSTEP_ISA_NS
#define LOCKSTEP_TEXT_(x) #x
#define LOCKSTEP_TEXT(x) LOCKSTEP_TEXT_(x)

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
const KernelTable& table();
const KernelTable& table() {
  static constexpr KernelTable result = {
      "cpu " LOCKSTEP_TEXT(LOCKSTEP_ISA), &create_cpu_context, &destroy_cpu_context, 0,
      LOCKSTEP_KERNELS(LOCKSTEP_GUARDED) LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_SCRATCH)};
  return result;
}
}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
