#include <cstring>

#include <lockstep_build_id.h>
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/cuda/device_cuda.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS cuda

namespace lockstep::kernels {

namespace {
constexpr KernelTable cuda_table = {"cuda", &create_cuda_context, &destroy_cuda_context, CudaContext::workspace_bytes,
                                    LOCKSTEP_KERNELS(LOCKSTEP_GUARDED) LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_SCRATCH)};
}  // namespace

}  // namespace lockstep::kernels

/// The module's one entry point: null if the program is of another build.
extern "C" __attribute__((visibility("default"))) const lockstep::CudaModule* lockstep_cuda_module(
    const char* build_id);

const lockstep::CudaModule* lockstep_cuda_module(const char* build_id) {
  static constexpr lockstep::CudaModule result = {&lockstep::kernels::cuda_table, &lockstep::cuda_status,
                                                  &lockstep::new_cuda_device,
                                                  &lockstep::kernels::describe_cuda_context};
  // The id that this file was compiled with, not what build_id() of the program's library says.
  return std::strcmp(build_id, LOCKSTEP_BUILD_ID) == 0 ? &result : nullptr;
}
