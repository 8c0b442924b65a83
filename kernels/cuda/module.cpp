#include <cstring>

#include <lockstep_build_id.h>
#include "core/error.hpp"
#include "kernels/cuda/device_cuda.hpp"
#include "kernels/cuda_loader.hpp"
#include "kernels/guarded.hpp"

#define LOCKSTEP_TABLE_NS cuda

namespace lockstep::kernels {

// Library calls on the GPU are not part of this version's module: the error says so where they are asked for.
namespace cuda {
namespace {
[[noreturn]] void not_in_module(const char* what) {
  fail(ErrorKind::environment, "the CUDA module of this version has no {}: use device: cpu", what);
}
}  // namespace
void matmul(const Exec& /*exec*/, const MatmulArgs& /*args*/) { not_in_module("matmul"); }
void attention_forward(const Exec& /*exec*/, const AttentionForwardArgs& /*args*/) { not_in_module("attention"); }
void attention_backward(const Exec& /*exec*/, const AttentionBackwardArgs& /*args*/) { not_in_module("attention"); }
std::size_t attention_backward_scratch(const AttentionBackwardArgs& /*args*/) noexcept { return 0; }
}  // namespace cuda

namespace {
constexpr KernelTable cuda_table = {"cuda", nullptr, nullptr,
                                    LOCKSTEP_KERNELS(LOCKSTEP_GUARDED) LOCKSTEP_KERNELS_WITH_SCRATCH(LOCKSTEP_SCRATCH)};
}  // namespace

}  // namespace lockstep::kernels

/// The module's one entry point: null if the program is of another build.
extern "C" __attribute__((visibility("default"))) const lockstep::CudaModule* lockstep_cuda_module(
    const char* build_id);

const lockstep::CudaModule* lockstep_cuda_module(const char* build_id) {
  static constexpr lockstep::CudaModule result = {&lockstep::kernels::cuda_table, &lockstep::cuda_status,
                                                  &lockstep::new_cuda_device};
  // The id that this file was compiled with, not what build_id() of the program's library says.
  return std::strcmp(build_id, LOCKSTEP_BUILD_ID) == 0 ? &result : nullptr;
}
