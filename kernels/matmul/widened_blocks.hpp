#pragma once

#include <cstdint>

namespace lockstep {

// Blocks of a product whose 16-bit operands are widened. Fixed, so that the thread count does not move a rounding.
// 1024 x 1024 results per 2048-deep step: at most 20 MiB of scratch, and widening an operand costs 1/1024 of its
// multiplications.
inline constexpr std::int64_t widened_block_rows = 1024;
inline constexpr std::int64_t widened_block_columns = 1024;
inline constexpr std::int64_t widened_block_depth = 2048;

/// fp32 numbers of scratch for a product of m x n results, k deep: a block of each operand and of the sum. Of each file
/// that includes this: some are compiled for an instruction set that not every CPU has.
[[nodiscard]] static constexpr std::int64_t widened_scratch(std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::int64_t rows = m < widened_block_rows ? m : widened_block_rows;
  const std::int64_t columns = n < widened_block_columns ? n : widened_block_columns;
  const std::int64_t depth = k < widened_block_depth ? k : widened_block_depth;
  return rows * depth + depth * columns + rows * columns;
}

}  // namespace lockstep
