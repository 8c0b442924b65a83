#pragma once

#include <vector_types.h>

#include "core/device.hpp"

namespace lockstep {

/// A GPU, which becomes the calling thread's current one. The caller owns the result.
[[nodiscard]] DeviceApi* new_cuda_device(int ordinal);
/// 0 without a driver or a device.
[[nodiscard]] int cuda_device_count();
[[nodiscard]] const char* why_no_cuda_device();

/// Throws ErrorKind::environment if the kernel launched last was refused.
void check_launch(dim3 grid, dim3 block);

}  // namespace lockstep
