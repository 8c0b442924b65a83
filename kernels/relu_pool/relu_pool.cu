#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"
#include "kernels/relu_pool/relu_pool_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;

struct Best {
  float value;
  std::int64_t at;  ///< element of pre; -1: nothing is above 0
};

/// A window's place: windows per image count those that are cut off by the edges if `rows` and `columns` do.
struct Window {
  std::int64_t image, i, j, channel;
};
__device__ __forceinline__ Window window_of(const PoolShape& s, std::int64_t index, std::int64_t rows,
                                            std::int64_t columns) {
  const std::int64_t window = index / s.channels;
  return {window / (rows * columns), window / columns % rows, window % columns, index % s.channels};
}
__device__ __forceinline__ std::int64_t element_at(const PoolShape& s, const Window& w, std::int64_t row,
                                                   std::int64_t column) {
  return ((w.image * s.height + row) * s.width + column) * s.channels + w.channel;
}

template <class T>
__device__ __forceinline__ Best best_of(const void* pre, const void* bias, const PoolShape& s, const Window& w) {
  Best best{0.0F, -1};
  const auto add = static_cast<float>(static_cast<const T*>(bias)[w.channel]);
  for (std::int64_t row = w.i * s.pool; row < (w.i + 1) * s.pool; ++row)
    for (std::int64_t column = w.j * s.pool; column < (w.j + 1) * s.pool; ++column) {
      const std::int64_t at = element_at(s, w, row, column);
      const float value = static_cast<float>(static_cast<const T*>(pre)[at]) + add;
      if (takes_over(value, best.value)) best = {value, at};
    }
  return best;
}

template <class T>
__global__ void __launch_bounds__(block_size) forward_kernel(ReluPoolForwardArgs args) {
  const PoolShape& s = args.shape;
  const std::int64_t count = s.batch * s.out_height() * s.out_width() * s.channels;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x)
    static_cast<T*>(args.y)[index] =
        T(best_of<T>(args.pre, args.bias, s, window_of(s, index, s.out_height(), s.out_width())).value);
}

/// A thread for each window and channel, those at the edges included: it reads a window before it writes it.
template <class T>
__global__ void __launch_bounds__(block_size) backward_kernel(ReluPoolBackwardArgs args) {
  const PoolShape& s = args.shape;
  const std::int64_t rows = (s.height + s.pool - 1) / s.pool, columns = (s.width + s.pool - 1) / s.pool;
  const std::int64_t count = s.batch * rows * columns * s.channels;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x) {
    const Window w = window_of(s, index, rows, columns);
    Best best{0.0F, -1};
    T gradient(0.0F);
    if (w.i < s.out_height() && w.j < s.out_width()) {
      best = best_of<T>(args.pre, args.bias, s, w);
      gradient = static_cast<const T*>(
          args.dy)[((w.image * s.out_height() + w.i) * s.out_width() + w.j) * s.channels + w.channel];
    }
    for (std::int64_t row = w.i * s.pool; row < (w.i + 1) * s.pool && row < s.height; ++row)
      for (std::int64_t column = w.j * s.pool; column < (w.j + 1) * s.pool && column < s.width; ++column) {
        const std::int64_t at = element_at(s, w, row, column);
        static_cast<T*>(args.dpre)[at] = at == best.at ? gradient : T(0.0F);
      }
  }
}

}  // namespace

void relu_pool_forward(const Exec& exec, const ReluPoolForwardArgs& args) {
  const PoolShape& s = args.shape;
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, forward_kernel<T>, dim3(blocks_for(s.batch * s.out_height() * s.out_width() * s.channels, block_size)),
           dim3(block_size), 0, args);
  });
}

void relu_pool_backward(const Exec& exec, const ReluPoolBackwardArgs& args) {
  const PoolShape& s = args.shape;
  const std::int64_t windows = ((s.height + s.pool - 1) / s.pool) * ((s.width + s.pool - 1) / s.pool);
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, backward_kernel<T>, dim3(blocks_for(s.batch * windows * s.channels, block_size)), dim3(block_size), 0,
           args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
