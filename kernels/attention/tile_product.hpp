#pragma once

// Small fp32 products out of cache for the tiles of attention, one thread. For *_cpu.cpp files only: everything here
// is local to the including file and compiled for its instruction set.

#include <immintrin.h>

#include <cstdint>

namespace lockstep::kernels {
namespace {

#if defined(__AVX512F__)
using Lane = __m512;
constexpr int widest = 4;  // 6 x 4 sums of the 32 registers
inline Lane lane_load(const float* p) { return _mm512_loadu_ps(p); }
inline void lane_store(float* p, Lane x) { _mm512_storeu_ps(p, x); }
inline Lane lane_zero() { return _mm512_setzero_ps(); }
inline Lane lane_fill(float x) { return _mm512_set1_ps(x); }
inline Lane lane_madd(Lane a, Lane b, Lane c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__)
using Lane = __m256;
constexpr int widest = 2;  // 6 x 2 sums of the 16 registers
inline Lane lane_load(const float* p) { return _mm256_loadu_ps(p); }
inline void lane_store(float* p, Lane x) { _mm256_storeu_ps(p, x); }
inline Lane lane_zero() { return _mm256_setzero_ps(); }
inline Lane lane_fill(float x) { return _mm256_set1_ps(x); }
inline Lane lane_madd(Lane a, Lane b, Lane c) { return _mm256_fmadd_ps(a, b, c); }
#else
using Lane = __m128;
constexpr int widest = 2;
inline Lane lane_load(const float* p) { return _mm_loadu_ps(p); }
inline void lane_store(float* p, Lane x) { _mm_storeu_ps(p, x); }
inline Lane lane_zero() { return _mm_setzero_ps(); }
inline Lane lane_fill(float x) { return _mm_set1_ps(x); }
inline Lane lane_madd(Lane a, Lane b, Lane c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
#endif
constexpr int lane_size = static_cast<int>(sizeof(Lane) / sizeof(float));

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

template <int lanes>
inline void micro_product(std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                          bool accumulate) {
  Lane sum[row_group][lanes];
  for (int i = 0; i < row_group; ++i)
    for (int j = 0; j < lanes; ++j) sum[i][j] = accumulate ? lane_load(c + i * ldc + j * lane_size) : lane_zero();
  for (std::int64_t p = 0; p < depth; ++p) {
    Lane right[lanes];
    for (int j = 0; j < lanes; ++j) right[j] = lane_load(b + p * ldb + j * lane_size);
#pragma GCC unroll 6
    for (int i = 0; i < row_group; ++i) {
      const Lane left = lane_fill(a.data[i * a.row + p * a.column]);
      for (int j = 0; j < lanes; ++j) sum[i][j] = lane_madd(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < row_group; ++i)
    for (int j = 0; j < lanes; ++j) lane_store(c + i * ldc + j * lane_size, sum[i][j]);
}

/// c [row_group, columns] (+)= a [row_group, depth] b [depth, columns].
inline void strip_product(std::int64_t columns, std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c,
                          std::int64_t ldc, bool accumulate) {
  std::int64_t j = 0;
  for (; j + widest * lane_size <= columns; j += widest * lane_size)
    micro_product<widest>(depth, a, b + j, ldb, c + j, ldc, accumulate);
  if (widest > 2 && j + 2 * lane_size <= columns) {
    micro_product<2>(depth, a, b + j, ldb, c + j, ldc, accumulate);
    j += 2 * lane_size;
  }
  for (; j < columns; j += lane_size) micro_product<1>(depth, a, b + j, ldb, c + j, ldc, accumulate);
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
