#pragma once

// Sums over rows on the device in two kernels: blocks of rows into partial sums, partial sums into the result. The
// order of additions is fixed by the shape alone. For .cu files only.
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr int column_lanes = 32;  ///< threads of a block along the columns
constexpr int row_lanes = 8;      ///< and along the rows
constexpr unsigned column_threads = column_lanes * row_lanes;

/// Row blocks of a kernel that walks [rows, cols], a function of these alone: enough with the tiles of columns for four
/// blocks on each of 132 multiprocessors, and each of 32 rows at least.
constexpr std::int64_t column_sum_blocks(std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t all_blocks = 528, tile_columns = 256, least_rows = 32;
  const std::int64_t tiles = (cols + tile_columns - 1) / tile_columns;
  const std::int64_t most = tiles < all_blocks ? all_blocks / tiles : 1;
  const std::int64_t wanted = (rows + least_rows - 1) / least_rows;
  return wanted < most ? wanted : most;
}
/// Bytes of their partial sums, [blocks][cols].
constexpr std::size_t column_sum_scratch(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(column_sum_blocks(rows, cols) * cols) * sizeof(float);
}
/// The first row of row block `block` of `blocks`; the first row behind it is the next one's.
LOCKSTEP_HOST_DEVICE constexpr std::int64_t first_row(std::int64_t rows, std::int64_t block, std::int64_t blocks) {
  return rows / blocks * block + rows % blocks * block / blocks;
}

/// Adds the row lanes' sums of a pack of columns and stores them: partial[c + k] for k < N. Every thread of the block
/// calls it; `inside` tells whether its columns exist.
template <int N>
__device__ __forceinline__ void store_column_sums(const Values<N>& sum, float* partial, std::int64_t c, bool inside) {
  LOCKSTEP_SHARED(float, lanes, [row_lanes][N][column_lanes]);
  for (int k = 0; k < N; ++k) lanes[threadIdx.y][k][threadIdx.x] = sum.v[k];
  __syncthreads();
  if (threadIdx.y != 0 || !inside) return;
  for (int k = 0; k < N; ++k) {
    float total = lanes[0][k][threadIdx.x];
    for (int y = 1; y < row_lanes; ++y) total += lanes[y][k][threadIdx.x];
    partial[c + k] = total;
  }
}

/// Where sums over the blocks go: the first `cols` columns of a partial sum to out[0], the next ones to out[1].
struct ColumnSums {
  float* out[2];
  bool accumulate[2];
  std::int64_t cols;
  int outs;  ///< 1 or 2
};
constexpr int finish_lanes = 32;  ///< most threads of a block that share a column

/// out[c] <- (accumulate: out[c] +) sum over blocks of partial[block * stride + c]; each thread takes every
/// blockDim.y-th block, a power of two.
__global__ void __launch_bounds__(column_lanes* finish_lanes)
    finish_kernel(const float* partial, std::int64_t blocks, ColumnSums to) {
  LOCKSTEP_SHARED(float, lanes, [finish_lanes][column_lanes]);
  const std::int64_t stride = to.outs * to.cols, c = std::int64_t{blockIdx.x} * column_lanes + threadIdx.x;
  const unsigned x = threadIdx.x, y = threadIdx.y;
  float sum = 0.0F;
  if (c < stride) {
#pragma unroll 8
    for (std::int64_t block = y; block < blocks; block += blockDim.y) sum += partial[block * stride + c];
  }
  lanes[y][x] = sum;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (y < half) lanes[y][x] += lanes[y + half][x];
  }
  if (y != 0 || c >= stride) return;
  const int which = c < to.cols ? 0 : 1;
  float& out = (which == 0 ? to.out[0] : to.out[1])[which == 0 ? c : c - to.cols];
  out = (which == 0 ? to.accumulate[0] : to.accumulate[1]) ? out + lanes[0][x] : lanes[0][x];
}

inline void sum_blocks(const Exec& exec, const void* partial, std::int64_t blocks, const ColumnSums& to) {
  unsigned lanes = 1;
  while (lanes < finish_lanes && lanes < blocks) lanes *= 2;
  const auto grid = static_cast<unsigned>((to.outs * to.cols + column_lanes - 1) / column_lanes);
  launch(exec, finish_kernel, dim3(grid), dim3(column_lanes, lanes), 0, static_cast<const float*>(partial), blocks, to);
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
