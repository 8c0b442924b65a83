// Bytes an element, one pass: that of dy, read once. Partial sums: 8 bytes for each of the row blocks and columns.
#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

template <class T, int N>
__global__ void __launch_bounds__(column_threads, resident_blocks(column_threads, 4))
    column_sums_kernel(BiasGradArgs args) {
  const std::int64_t c = (std::int64_t{blockIdx.y} * column_lanes + threadIdx.x) * N;
  const std::int64_t first = first_row(args.rows, blockIdx.x, gridDim.x);
  const std::int64_t last = first_row(args.rows, blockIdx.x + 1, gridDim.x);
  Values<N> sum{};
  if (c < args.cols) {
    const T* dy = static_cast<const T*>(args.dy) + c;
#pragma unroll 4
    for (std::int64_t r = first + threadIdx.y; r < last; r += row_lanes) {
      const auto values = widen(load_once<N>(dy + r * args.cols));
      for (int k = 0; k < N; ++k) sum.v[k] += values.v[k];
    }
  }
  store_column_sums(sum, static_cast<float*>(args.scratch) + blockIdx.x * args.cols, c, c < args.cols);
}

}  // namespace

std::size_t bias_grad_scratch(const BiasGradArgs& args) noexcept { return column_sum_scratch(args.rows, args.cols); }

void bias_grad(const Exec& exec, const BiasGradArgs& args) {
  const std::int64_t blocks = column_sum_blocks(args.rows, args.cols);
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.dy}), [&]<class T, int N>(Packed<T, N>) {
    if (blocks == 0) return;
    const auto tiles = static_cast<unsigned>((args.cols / N + column_lanes - 1) / column_lanes);
    launch(exec, column_sums_kernel<T, N>, dim3(static_cast<unsigned>(blocks), tiles), dim3(column_lanes, row_lanes), 0,
           args);
  });
  sum_blocks(exec, args.scratch, blocks, {{args.dbias}, {args.accumulate != 0}, args.cols, 1});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
