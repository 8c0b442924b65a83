#include "kernels/matmul/library_context.hpp"

#include "kernels/matmul/onednn_context.hpp"

namespace lockstep::kernels {

void* create_cpu_context(DeviceApi*) { return new OnednnContext; }

void destroy_cpu_context(void* context) { delete static_cast<OnednnContext*>(context); }

}  // namespace lockstep::kernels
