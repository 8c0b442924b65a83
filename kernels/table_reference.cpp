#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS reference

namespace lockstep::kernels {

const KernelTable& reference_table() {
  static constexpr KernelTable result = {"reference", nullptr, nullptr, LOCKSTEP_KERNELS(LOCKSTEP_GUARDED)};
  return result;
}

}  // namespace lockstep::kernels
