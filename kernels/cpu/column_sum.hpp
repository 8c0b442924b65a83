#pragma once

// The second half of every reduction over rows on the CPU; for *_cpu.cpp files only.
#include "kernels/cpu/vector_math.hpp"

namespace lockstep::kernels {
namespace {

/// Rows of one partial sum of bias_grad and gelu_backward; fixed, so that the result does not depend on threads.
constexpr std::int64_t column_sum_rows = 32;
constexpr std::int64_t column_sum_blocks(std::int64_t rows) { return (rows + column_sum_rows - 1) / column_sum_rows; }
/// Bytes of their partial sums, [blocks][cols].
constexpr std::size_t column_sum_scratch(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(column_sum_blocks(rows) * cols) * sizeof(float);
}

/// out[c] <- (accumulate: out[c] +) sum over the blocks of partial[block * stride + c], in ascending order of blocks.
inline void sum_blocks(int threads, const float* partial, std::int64_t blocks, std::int64_t stride, float* out,
                       std::int64_t cols, bool accumulate) {
  constexpr std::int64_t strip = 4 * lanes;
  const int used = threads_for(threads, blocks * cols);
#pragma omp parallel for num_threads(used) if (used > 1) schedule(static)
  for (std::int64_t begin = 0; begin < cols; begin += strip) {
    const std::int64_t width = cols - begin < strip ? cols - begin : strip;
    float sum[strip] = {};
    for (std::int64_t block = 0; block < blocks; ++block) {
      const float* row = partial + block * stride + begin;
      for_lanes(
          width, [&](std::int64_t c, auto n) __attribute__((always_inline)) {
            store(sum + c, load(sum + c, AllLanes{}) + load(row + c, n), AllLanes{});
          });
    }
    for (std::int64_t c = 0; c < width; ++c) out[begin + c] = accumulate ? out[begin + c] + sum[c] : sum[c];
  }
}

}  // namespace
}  // namespace lockstep::kernels
