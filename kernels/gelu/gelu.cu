#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

// 0.5 (1 + tanh u) = sigmoid(2 u): one exponential, and no cancellation for negative x.
constexpr float slope = 1.59576912161F;    // 2 sqrt(2 / pi)
constexpr float cubic = 0.0713548162726F;  // 0.044715 of it
constexpr float bound = 30.0F;             // beyond, sigmoid(2 u) is 0 or 1 to the last bit

__device__ __forceinline__ float bounded(float x) { return x > bound ? bound : (x < -bound ? -bound : x); }
__device__ __forceinline__ float sigmoid_of_twice_u(float x) {
  return 1.0F / (1.0F + expf(-x * (slope + cubic * (x * x))));
}
__device__ __forceinline__ float gelu(float x) {
  const float s = sigmoid_of_twice_u(bounded(x));
  return (x < -bound ? -bound : x) * s;
}
__device__ __forceinline__ float gelu_derivative(float x) {
  x = bounded(x);
  const float s = sigmoid_of_twice_u(x);
  return s + x * s * (1.0F - s) * (slope + 3.0F * cubic * (x * x));
}

template <class T, int N>
__global__ void __launch_bounds__(256) forward_kernel(GeluForwardArgs args) {
  const std::int64_t packs = args.rows * args.cols / N, stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += stride) {
    auto x = load_pack<N>(static_cast<const T*>(args.x) + i * N);
    if (args.bias != nullptr) {
      const auto bias = load_pack<N>(static_cast<const T*>(args.bias) + i * N % args.cols);
      for (int k = 0; k < N; ++k) x.v[k] += bias.v[k];
      x = store_pack<N>(static_cast<T*>(args.pre) + i * N, x);  // as rounded: what backward will see
    }
    for (int k = 0; k < N; ++k) x.v[k] = gelu(x.v[k]);
    store_pack<N>(static_cast<T*>(args.y) + i * N, x);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(column_lanes* row_lanes) backward_kernel(GeluBackwardArgs args) {
  const std::int64_t c = (std::int64_t{blockIdx.y} * column_lanes + threadIdx.x) * N;
  const std::int64_t first = std::int64_t{blockIdx.x} * column_sum_rows;
  const std::int64_t last = args.rows - first < column_sum_rows ? args.rows : first + column_sum_rows;
  Values<N> sum{};
  if (c < args.cols)
    for (std::int64_t r = first + threadIdx.y; r < last; r += row_lanes) {
      auto dx = load_pack<N>(static_cast<const T*>(args.dy) + r * args.cols + c);
      const auto pre = load_pack<N>(static_cast<const T*>(args.pre) + r * args.cols + c);
      for (int k = 0; k < N; ++k) dx.v[k] *= gelu_derivative(pre.v[k]);
      dx = store_pack<N>(static_cast<T*>(args.dx) + r * args.cols + c, dx);
      for (int k = 0; k < N; ++k) sum.v[k] += dx.v[k];
    }
  if (args.dbias != nullptr)
    store_column_sums(sum, static_cast<float*>(args.scratch) + blockIdx.x * args.cols, c, c < args.cols);
}

}  // namespace

void gelu_forward(const Exec& exec, const GeluForwardArgs& args) {
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.x, args.bias, args.pre, args.y}),
            [&]<class T, int N>(Packed<T, N>) {
              launch(exec, forward_kernel<T, N>, dim3(blocks_for(args.rows * args.cols / N, 256)), dim3(256), 0, args);
            });
}

std::size_t gelu_backward_scratch(const GeluBackwardArgs& args) noexcept {
  return column_sum_scratch(args.rows, args.cols);
}

void gelu_backward(const Exec& exec, const GeluBackwardArgs& args) {
  const std::int64_t blocks = column_sum_blocks(args.rows);
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.dy, args.pre, args.dx}),
            [&]<class T, int N>(Packed<T, N>) {
              if (blocks == 0) return;
              const auto tiles = static_cast<unsigned>((args.cols / N + column_lanes - 1) / column_lanes);
              launch(exec, backward_kernel<T, N>, dim3(static_cast<unsigned>(blocks), tiles),
                     dim3(column_lanes, row_lanes), 0, args);
            });
  if (args.dbias != nullptr)
    sum_blocks(exec, static_cast<const float*>(args.scratch), blocks, args.cols, args.dbias, args.cols,
               args.accumulate != 0);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
