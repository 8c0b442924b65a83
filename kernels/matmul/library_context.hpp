#pragma once

namespace lockstep {
class DeviceApi;

namespace kernels {

/// What one rank keeps between library calls on the CPU: compiled primitives and packed weights. Exec::context points
/// at it; it is not shared by threads. For KernelTable::create_context.
[[nodiscard]] void* create_cpu_context(DeviceApi* device);
void destroy_cpu_context(void* context);

}  // namespace kernels
}  // namespace lockstep
