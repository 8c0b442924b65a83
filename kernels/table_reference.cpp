#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS reference

namespace lockstep::kernels {
namespace {

template <class Args>
std::size_t no_scratch(const Args& /*args*/) noexcept {
  return 0;
}
#define LOCKSTEP_NO_SCRATCH(kernel, Args) &no_scratch<Args>,

}  // namespace

const KernelTable& reference_table() {
  static constexpr KernelTable result = {"reference", nullptr, nullptr, 0,
                                         LOCKSTEP_KERNELS(LOCKSTEP_GUARDED)
                                             LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_NO_SCRATCH)};
  return result;
}

}  // namespace lockstep::kernels
