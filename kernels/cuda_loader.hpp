#pragma once

#include <memory>

#include "core/device.hpp"
#include "kernels/table.hpp"

namespace lockstep {

/// What program and module must agree about: a hash of this header and of all that it includes (every struct and
/// interface that crosses between them), of the compiler and of the version. Made by cmake/build_id.cmake.
[[nodiscard]] const char* build_id();

/// What a machine has of NVIDIA's driver and devices. Versions are 1000 * major + 10 * minor of CUDA.
struct CudaStatus {
  int driver = 0;           ///< the newest CUDA that the driver knows; 0: there is no driver
  int runtime = 0;          ///< the CUDA that the module was built with
  int devices = 0;          ///< that can be used
  const char* reason = "";  ///< the CUDA runtime's own, where there are no devices
};

/// What the CUDA module gives: everything of it that the rest of the program knows.
struct CudaModule {
  const KernelTable* table = nullptr;
  CudaStatus (*status)() = nullptr;
  DeviceApi* (*new_device)(int ordinal) = nullptr;

  [[nodiscard]] int device_count() const { return status().devices; }
  /// The device with this ordinal, for use by the calling thread; ErrorKind::environment if it cannot be opened.
  [[nodiscard]] std::unique_ptr<DeviceApi> make_device(int ordinal) const;
};

/// Opens the module liblockstep_cuda.so beside the program's library, once. ErrorKind::environment, with what to do,
/// unless all is there; it says which is missing: the module, a library that it needs, the driver, or a GPU.
[[nodiscard]] const CudaModule& load_cuda_module();

/// Whether there is a file that is to be the module: without one this is a build for CPUs.
[[nodiscard]] bool cuda_module_is_there();

/// Whether load_cuda_module() succeeds.
[[nodiscard]] bool cuda_is_available();

}  // namespace lockstep
