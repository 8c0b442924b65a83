#pragma once

// Sums over rows on the device in two kernels: blocks of rows into partial sums, partial sums into the result. The
// order of additions is fixed by the shape alone. For .cu files only.
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr int column_lanes = 32;  ///< threads of a block along the columns
constexpr int row_lanes = 8;      ///< and along the rows

/// Rows of one partial sum of bias_grad and gelu_backward.
constexpr std::int64_t column_sum_rows = 32;
constexpr std::int64_t column_sum_blocks(std::int64_t rows) { return (rows + column_sum_rows - 1) / column_sum_rows; }
/// Bytes of their partial sums, [blocks][cols].
constexpr std::size_t column_sum_scratch(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(column_sum_blocks(rows) * cols) * sizeof(float);
}

/// Adds the row lanes' sums of a pack of columns and stores them: partial[c + k] for k < N. Every thread of the block
/// calls it; `inside` tells whether its columns exist.
template <int N>
__device__ __forceinline__ void store_column_sums(const Values<N>& sum, float* partial, std::int64_t c, bool inside) {
  LOCKSTEP_SHARED(float, lanes, [row_lanes][column_lanes][N]);
  for (int k = 0; k < N; ++k) lanes[threadIdx.y][threadIdx.x][k] = sum.v[k];
  __syncthreads();
  if (threadIdx.y != 0 || !inside) return;
  for (int k = 0; k < N; ++k) {
    float total = lanes[0][threadIdx.x][k];
    for (int y = 1; y < row_lanes; ++y) total += lanes[y][threadIdx.x][k];
    partial[c + k] = total;
  }
}

/// out[c] <- (accumulate: out[c] +) sum over blocks of partial[block * stride + c].
__global__ void __launch_bounds__(column_lanes* row_lanes)
    sum_blocks_kernel(const float* partial, std::int64_t blocks, std::int64_t stride, float* out, std::int64_t cols,
                      bool accumulate) {
  LOCKSTEP_SHARED(float, lanes, [row_lanes][column_lanes]);
  const std::int64_t c = std::int64_t{blockIdx.x} * column_lanes + threadIdx.x;
  float sum = 0.0F;
  if (c < cols)
    for (std::int64_t block = threadIdx.y; block < blocks; block += row_lanes) sum += partial[block * stride + c];
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
  for (int y = 1; y < row_lanes; ++y) sum += lanes[y][threadIdx.x];
  out[c] = accumulate ? out[c] + sum : sum;
}

inline void sum_blocks(const Exec& exec, const float* partial, std::int64_t blocks, std::int64_t stride, float* out,
                       std::int64_t cols, bool accumulate) {
  const auto grid = static_cast<unsigned>((cols + column_lanes - 1) / column_lanes);
  launch(exec, sum_blocks_kernel, dim3(grid), dim3(column_lanes, row_lanes), 0, partial, blocks, stride, out, cols,
         accumulate);
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
