#pragma once

#include <vector_types.h>

#include "core/device.hpp"
#include "kernels/cuda_loader.hpp"

namespace lockstep {

/// A GPU, which becomes the calling thread's current one. The caller owns the result.
[[nodiscard]] DeviceApi* new_cuda_device(int ordinal);
/// What there is of driver and devices. Never throws.
[[nodiscard]] CudaStatus cuda_status();

/// Throws ErrorKind::environment if the kernel launched last was refused.
void check_launch(dim3 grid, dim3 block);

}  // namespace lockstep
