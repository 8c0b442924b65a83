#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "core/device.hpp"
#include "kernels/table.hpp"

namespace lockstep {

/// What program and module must agree about: a number of this interface, and the size of every struct that crosses.
[[nodiscard]] constexpr std::uint64_t cuda_abi() {
  std::uint64_t abi = 1;
  for (const std::size_t size : {sizeof(KernelTable), sizeof(Exec), sizeof(StepRecord), sizeof(StepState),
#define LOCKSTEP_SIZE(kernel, Args) sizeof(Args),
                                 LOCKSTEP_KERNELS(LOCKSTEP_SIZE)
#undef LOCKSTEP_SIZE
                                     sizeof(StepResult)})
    abi = abi * 0x100000001b3ULL + size;
  return abi;
}

/// What the CUDA module gives: everything of it that the rest of the program knows.
struct CudaModule {
  const KernelTable* table = nullptr;
  int (*device_count)() = nullptr;           ///< 0 without a driver or a device
  const char* (*why_no_device)() = nullptr;  ///< the CUDA runtime's reason when device_count() is 0
  DeviceApi* (*new_device)(int ordinal) = nullptr;

  /// The device with this ordinal, for use by the calling thread; ErrorKind::environment if it cannot be opened.
  [[nodiscard]] std::unique_ptr<DeviceApi> make_device(int ordinal) const;
};

/// Opens the module liblockstep_cuda.so beside the program's library, once. ErrorKind::environment, naming which of
/// module, driver and device is missing, unless all three are there.
[[nodiscard]] const CudaModule& load_cuda_module();

/// Whether load_cuda_module() succeeds.
[[nodiscard]] bool cuda_is_available();

}  // namespace lockstep
