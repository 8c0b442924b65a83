#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

template <class T, int N>
__global__ void __launch_bounds__(column_lanes* row_lanes) column_sums_kernel(BiasGradArgs args) {
  const std::int64_t c = (std::int64_t{blockIdx.y} * column_lanes + threadIdx.x) * N;
  const std::int64_t first = std::int64_t{blockIdx.x} * column_sum_rows;
  const std::int64_t last = args.rows - first < column_sum_rows ? args.rows : first + column_sum_rows;
  Values<N> sum{};
  if (c < args.cols)
    for (std::int64_t r = first + threadIdx.y; r < last; r += row_lanes) {
      const auto dy = load_pack<N>(static_cast<const T*>(args.dy) + r * args.cols + c);
      for (int k = 0; k < N; ++k) sum.v[k] += dy.v[k];
    }
  store_column_sums(sum, static_cast<float*>(args.scratch) + blockIdx.x * args.cols, c, c < args.cols);
}

}  // namespace

std::size_t bias_grad_scratch(const BiasGradArgs& args) noexcept { return column_sum_scratch(args.rows, args.cols); }

void bias_grad(const Exec& exec, const BiasGradArgs& args) {
  const std::int64_t blocks = column_sum_blocks(args.rows);
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.dy}), [&]<class T, int N>(Packed<T, N>) {
    if (blocks == 0) return;
    const auto tiles = static_cast<unsigned>((args.cols / N + column_lanes - 1) / column_lanes);
    launch(exec, column_sums_kernel<T, N>, dim3(static_cast<unsigned>(blocks), tiles), dim3(column_lanes, row_lanes), 0,
           args);
  });
  sum_blocks(exec, static_cast<const float*>(args.scratch), blocks, args.cols, args.dbias, args.cols,
             args.accumulate != 0);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
