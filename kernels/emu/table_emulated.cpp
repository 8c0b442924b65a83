#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS emu

namespace lockstep::kernels {

const KernelTable& emulated_table() {
  static constexpr KernelTable result = {"emulated", nullptr, nullptr, LOCKSTEP_KERNELS(LOCKSTEP_GUARDED)};
  return result;
}

}  // namespace lockstep::kernels
