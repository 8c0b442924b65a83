#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS emu

namespace lockstep::kernels {

const KernelTable& emulated_table() {
  static constexpr KernelTable result = {"emulated", nullptr, nullptr, 0,
                                         LOCKSTEP_KERNELS(LOCKSTEP_GUARDED)
                                             LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_SCRATCH)};
  return result;
}

}  // namespace lockstep::kernels
