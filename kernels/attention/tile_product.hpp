#pragma once

// Small fp32 products out of cache for the tiles of attention, one thread. For *_cpu.cpp files only: everything here
// is local to the including file and compiled for its instruction set.

#include <xmmintrin.h>

#include <cstdint>

#include "kernels/cpu/vector_math.hpp"

namespace lockstep::kernels {
namespace {

/// All lanes a. splat() would add it to zero, which costs an instruction where a is no constant.
LOCKSTEP_INLINE Floats broadcast(float a) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(a);
#elif defined(__AVX2__)
  return _mm256_set1_ps(a);
#else
  return _mm_set1_ps(a);
#endif
}

/// Vectors of a row that a group of rows sums at once: 6 x 4 of the 32 registers, or 6 x 2 of 16.
constexpr int widest = lanes == 16 ? 4 : 2;

/// Results are computed in groups of this many rows; buffers have rows to spare up to a multiple of it.
constexpr std::int64_t row_group = 6;
/// Columns come in multiples of this; buffers have columns to spare.
constexpr std::int64_t column_group = 16;
/// Columns and depth of the piece of b that stays in the first-level cache: 64 x 64 floats.
constexpr std::int64_t cache_block = 64;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// A factor whose element (i, p) is data[i * row + p * column]: plain or transposed.
struct Left {
  const float* data;
  std::int64_t row;
  std::int64_t column;
};

template <int vectors>
inline void micro_product(std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                          bool accumulate) {
  Floats sum[row_group][vectors];
  for (int i = 0; i < row_group; ++i)
    for (int j = 0; j < vectors; ++j) sum[i][j] = accumulate ? load(c + i * ldc + j * lanes, AllLanes{}) : Floats{};
  for (std::int64_t p = 0; p < depth; ++p) {
    Floats right[vectors];
    for (int j = 0; j < vectors; ++j) right[j] = load(b + p * ldb + j * lanes, AllLanes{});
#pragma GCC unroll 6
    for (int i = 0; i < row_group; ++i) {
      const Floats left = broadcast(a.data[i * a.row + p * a.column]);
      for (int j = 0; j < vectors; ++j) sum[i][j] = multiply_add(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < row_group; ++i)
    for (int j = 0; j < vectors; ++j) store(c + i * ldc + j * lanes, sum[i][j], AllLanes{});
}

/// c [row_group, columns] (+)= a [row_group, depth] b [depth, columns].
inline void strip_product(std::int64_t columns, std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c,
                          std::int64_t ldc, bool accumulate) {
  std::int64_t j = 0;
  for (; j + widest * lanes <= columns; j += widest * lanes)
    micro_product<widest>(depth, a, b + j, ldb, c + j, ldc, accumulate);
  if (widest > 2 && j + 2 * lanes <= columns) {
    micro_product<2>(depth, a, b + j, ldb, c + j, ldc, accumulate);
    j += 2 * lanes;
  }
  for (; j < columns; j += lanes) micro_product<1>(depth, a, b + j, ldb, c + j, ldc, accumulate);
}

/// c [rows, columns] (+)= a [rows, depth] b [depth, columns] where row group r needs only the columns below
/// columns_of(r) and only the depth below depth_of(r). The order of the sums depends on nothing but the sizes.
template <class ColumnsOf, class DepthOf>
inline void tile_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left a, const float* b,
                         std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate, ColumnsOf columns_of,
                         DepthOf depth_of) {
  const auto smaller = [](std::int64_t x, std::int64_t y) { return x < y ? x : y; };
  for (std::int64_t j = 0; j < columns; j += cache_block)
    for (std::int64_t p = 0; p < depth; p += cache_block)
      for (std::int64_t i = 0; i < rows; i += row_group) {
        const std::int64_t width = smaller(cache_block, round_up(smaller(columns_of(i), columns), column_group) - j);
        const std::int64_t length = smaller(cache_block, smaller(depth_of(i), depth) - p);
        if (width <= 0 || length <= 0) continue;
        strip_product(width, length, {a.data + i * a.row + p * a.column, a.row, a.column}, b + p * ldb + j, ldb,
                      c + i * ldc + j, ldc, accumulate || p > 0);
      }
}

/// to [columns, rows] <- from [rows, columns] transposed; both counts are multiples of 4.
inline void transpose(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t ld_from, float* to,
                      std::int64_t ld_to) {
  for (std::int64_t i = 0; i < rows; i += 4)
    for (std::int64_t j = 0; j < columns; j += 4) {
      const float* source = from + i * ld_from + j;
      __m128 r0 = _mm_loadu_ps(source);
      __m128 r1 = _mm_loadu_ps(source + ld_from);
      __m128 r2 = _mm_loadu_ps(source + 2 * ld_from);
      __m128 r3 = _mm_loadu_ps(source + 3 * ld_from);
      _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
      float* target = to + j * ld_to + i;
      _mm_storeu_ps(target, r0);
      _mm_storeu_ps(target + ld_to, r1);
      _mm_storeu_ps(target + 2 * ld_to, r2);
      _mm_storeu_ps(target + 3 * ld_to, r3);
    }
}

}  // namespace
}  // namespace lockstep::kernels
