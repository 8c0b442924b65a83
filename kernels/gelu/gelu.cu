// Bytes an element, one pass each: forward reads x and writes y, with a bias writes the sum too; backward reads dy and
// the sum and writes dx. Partial sums of dbias as in bias_grad.
#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"
#include "kernels/device/math.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

// 0.5 (1 + tanh u) = sigmoid(2 u): one exponential, and no cancellation for negative x.
constexpr float slope = 1.59576912161F;    // 2 sqrt(2 / pi)
constexpr float cubic = 0.0713548162726F;  // 0.044715 of it
constexpr float bound = 30.0F;             // beyond, sigmoid(2 u) is 0 or 1 to the last bit

__device__ __forceinline__ float bounded(float x) { return x > bound ? bound : (x < -bound ? -bound : x); }
template <class T>
__device__ __forceinline__ float sigmoid_of_twice_u(float x) {
  return reciprocal_for<T>(1.0F + exp_for<T>(-x * (slope + cubic * (x * x))));
}
template <class T>
__device__ __forceinline__ float gelu(float x) {
  const float s = sigmoid_of_twice_u<T>(bounded(x));
  return (x < -bound ? -bound : x) * s;
}
template <class T>
__device__ __forceinline__ float gelu_derivative(float x) {
  x = bounded(x);
  const float s = sigmoid_of_twice_u<T>(x);
  return s + x * s * (1.0F - s) * (slope + 3.0F * cubic * (x * x));
}

constexpr unsigned forward_threads = 256;
constexpr unsigned forward_blocks = 6;  ///< of a multiprocessor

template <class T, int N>
__global__ void __launch_bounds__(forward_threads, resident_blocks(forward_threads, forward_blocks))
    forward_kernel(GeluForwardArgs args) {
  const std::int64_t row_packs = args.cols / N, packs = args.rows * row_packs;
  const std::int64_t stride = std::int64_t{gridDim.x} * forward_threads;
  std::int64_t i = std::int64_t{blockIdx.x} * forward_threads + threadIdx.x;
  // Of a row's packs: the first one here, and how far a stride goes on. The only two divisions.
  std::int64_t column = i % row_packs;
  const std::int64_t column_step = stride % row_packs;
  for (; i < packs; i += stride) {
    auto x = load_pack<N>(static_cast<const T*>(args.x) + i * N);
    if (args.bias != nullptr) {
      x = x + load_pack<N>(static_cast<const T*>(args.bias) + column * N);
      x = store_pack<N>(static_cast<T*>(args.pre) + i * N, x);  // as rounded: what backward will see
      column += column_step;
      if (column >= row_packs) column -= row_packs;
    }
    for (int k = 0; k < N; ++k) x.v[k] = gelu<T>(x.v[k]);
    store_pack<N>(static_cast<T*>(args.y) + i * N, x);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(column_threads, resident_blocks(column_threads, 4))
    backward_kernel(GeluBackwardArgs args) {
  const std::int64_t c = (std::int64_t{blockIdx.y} * column_lanes + threadIdx.x) * N;
  const std::int64_t first = first_row(args.rows, blockIdx.x, gridDim.x);
  const std::int64_t last = first_row(args.rows, blockIdx.x + 1, gridDim.x);
  Values<N> sum{};
  if (c < args.cols) {
    constexpr int together = 2;  // rows whose loads are under way at once; dx may be dy, so they come before its stores
    const std::int64_t step = row_lanes * args.cols;
    std::int64_t at = (first + threadIdx.y) * args.cols + c;
    const std::int64_t end = last * args.cols;
    for (; at < end; at += together * step) {
      Pack<T, N> dy[together], pre[together];
      for (int j = 0; j < together; ++j) {
        if (at + j * step >= end) continue;
        dy[j] = load_once<N>(static_cast<const T*>(args.dy) + at + j * step);
        pre[j] = load_once<N>(static_cast<const T*>(args.pre) + at + j * step);
      }
      for (int j = 0; j < together; ++j) {
        if (at + j * step >= end) continue;
        auto dx = widen(dy[j]);
        const auto x = widen(pre[j]);
        for (int k = 0; k < N; ++k) dx.v[k] *= gelu_derivative<T>(x.v[k]);
        dx = store_pack<N>(static_cast<T*>(args.dx) + at + j * step, dx);
        sum = sum + dx;
      }
    }
  }
  if (args.dbias != nullptr)
    store_column_sums(sum, static_cast<float*>(args.scratch) + blockIdx.x * args.cols, c, c < args.cols);
}

}  // namespace

void gelu_forward(const Exec& exec, const GeluForwardArgs& args) {
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.x, args.bias, args.pre, args.y}),
            [&]<class T, int N>(Packed<T, N>) {
              const std::int64_t blocks = (args.rows * args.cols / N + forward_threads - 1) / forward_threads;
              launch(exec, forward_kernel<T, N>,
                     dim3(persistent_blocks(static_cast<std::size_t>(blocks), forward_blocks)), dim3(forward_threads),
                     0, args);
            });
}

std::size_t gelu_backward_scratch(const GeluBackwardArgs& args) noexcept {
  return column_sum_scratch(args.rows, args.cols);
}

void gelu_backward(const Exec& exec, const GeluBackwardArgs& args) {
  const std::int64_t blocks = column_sum_blocks(args.rows, args.cols);
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.dy, args.pre, args.dx}),
            [&]<class T, int N>(Packed<T, N>) {
              if (blocks == 0) return;
              const auto tiles = static_cast<unsigned>((args.cols / N + column_lanes - 1) / column_lanes);
              launch(exec, backward_kernel<T, N>, dim3(static_cast<unsigned>(blocks), tiles),
                     dim3(column_lanes, row_lanes), 0, args);
            });
  if (args.dbias != nullptr)
    sum_blocks(exec, args.scratch, blocks, {{args.dbias}, {args.accumulate != 0}, args.cols, 1});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
