#include "kernels/device/pack.hpp"
#include "kernels/matmul/matmul_start.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned threads = 256;

/// A block for each row, as far as blocks go.
template <class T, class C>
__global__ void __launch_bounds__(threads) start_kernel(MatmulArgs args) {
  const T* bias = static_cast<const T*>(args.bias);
  for (std::int64_t i = blockIdx.x; i < args.m; i += gridDim.x) {
    C* row = static_cast<C*>(args.c) + i * args.ldc;
    for (std::int64_t j = threadIdx.x; j < args.n; j += threads) {
      float value = args.accumulate != 0 ? static_cast<float>(row[j]) : 0.0F;
      if (bias != nullptr) value += static_cast<float>(bias[j]);
      row[j] = C(value);
    }
  }
}

}  // namespace

void matmul_start(const Exec& exec, const MatmulArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    const dim3 blocks(blocks_for(args.m, 1));
    if (args.c_dtype == DType::f32)
      launch(exec, start_kernel<T, float>, blocks, dim3(threads), 0, args);
    else
      launch(exec, start_kernel<T, T>, blocks, dim3(threads), 0, args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
