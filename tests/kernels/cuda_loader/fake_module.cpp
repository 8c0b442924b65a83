// A CUDA module without CUDA: its status is what LOCKSTEP_FAKE_CUDA says, "driver runtime devices build", and its
// devices are emulated.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda_loader.hpp"
#include "kernels/emu/emu_device.hpp"

namespace {

char build[8] = "same";

lockstep::CudaStatus status() {
  lockstep::CudaStatus result{.reason = "no CUDA-capable device is detected"};
  const char* text = std::getenv("LOCKSTEP_FAKE_CUDA");
  if (text != nullptr) (void)std::sscanf(text, "%d %d %d %7s", &result.driver, &result.runtime, &result.devices, build);
  return result;
}

}  // namespace

extern "C" const lockstep::CudaModule* lockstep_cuda_module(const char* build_id);

const lockstep::CudaModule* lockstep_cuda_module(const char* /*build_id*/) {
  static const lockstep::CudaModule result = {
      &lockstep::kernels::emulated_table(), &status, [](int ordinal) -> lockstep::DeviceApi* {
        return lockstep::make_emulated_device(static_cast<std::uint64_t>(ordinal)).release();
      }};
  (void)status();
  return std::strcmp(build, "same") == 0 ? &result : nullptr;
}
