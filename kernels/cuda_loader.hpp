#pragma once

#include <memory>

#include "core/device.hpp"
#include "kernels/table.hpp"

namespace lockstep {

/// What program and module must agree about: a hash of this header and of all that it includes (every struct and
/// interface that crosses between them), of the compiler and of the version. Made by cmake/build_id.cmake.
[[nodiscard]] const char* build_id();

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
