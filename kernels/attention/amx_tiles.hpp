#pragma once

// AMX tiles for attention_amx_cpu.cpp, which sets the target; local to the including file.
//
// A product c [rows, columns] += a [rows, depth] b [depth, columns] of bf16 goes in tiles of 16 rows of 64 bytes: a by
// rows of 32 elements, b in "pairs": row p of a tile holds, for 16 columns, elements 2p and 2p + 1 of the depth side by
// side. Turning rows into the pairs of their transpose moves whole 32-bit words, so it is a 16 x 16 word transposition.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace lockstep::kernels {
namespace {

constexpr std::int64_t tile_side = 16;
constexpr std::int64_t tile_bytes = 1024;
constexpr std::int64_t tile_depth = 32;  ///< bf16 elements of one step
constexpr std::int64_t block_side = 32;  ///< a product's block: 2 x 2 tiles

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Holds the thread's tile configuration.
class TileUse {
 public:
  TileUse() {
    // gcc 12 declares that the intrinsic reads only 8 bytes of its argument: a local object would be optimised away.
    static const TileConfig config;
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
  ~TileUse() { _tile_release(); }
};

/// Asks the kernel for the tile registers' state, once a process.
inline bool tiles_permitted() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

/// Where the tiles of one factor are: strides in bytes.
struct Factor {
  const void* data;
  std::int64_t row;     ///< between rows of a tile
  std::int64_t second;  ///< from the block's first tile to the other
  std::int64_t step;    ///< along the depth
};

/// c [32, 32] (+)= a b over `steps` steps of depth 32; ldc in floats.
inline void block_product(Factor a, Factor b, std::int64_t steps, float* c, std::int64_t ldc, bool accumulate) {
  const auto stride = static_cast<std::size_t>(ldc) * sizeof(float);
  float* lower = c + tile_side * ldc;
  if (accumulate) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + tile_side, stride);
    _tile_loadd(2, lower, stride);
    _tile_loadd(3, lower + tile_side, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto* left = static_cast<const char*>(a.data);
  const auto* right = static_cast<const char*>(b.data);
  for (std::int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, left, a.row);
    _tile_loadd(6, right, b.row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + b.second, b.row);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + a.second, a.row);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    left += a.step;
    right += b.step;
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + tile_side, stride);
  _tile_stored(2, lower, stride);
  _tile_stored(3, lower + tile_side, stride);
}

/// Rows of a [rows, columns] bf16 matrix in memory; reads past either end give zero.
struct Source {
  const bf16* data;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t columns;

  /// Elements [column, column + 32) of a row.
  [[nodiscard]] __m512i at(std::int64_t row, std::int64_t column) const {
    if (row >= rows || column >= columns) return _mm512_setzero_si512();
    const std::int64_t left = columns - column;
    const __mmask32 mask = left >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((std::uint32_t{1} << left) - 1);
    return _mm512_maskz_loadu_epi16(mask, data + row * stride + column);
  }
};

/// r[i] word j <-> r[j] word i.
inline void transpose_words(__m512i r[16]) {
  __m512i t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // u[4 g + c], lane l: column 4 l + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i even_a = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88);
    const __m512i even_b = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88);
    const __m512i odd_a = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xdd);
    const __m512i odd_b = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xdd);
    r[c] = _mm512_shuffle_i32x4(even_a, even_b, 0x88);
    r[8 + c] = _mm512_shuffle_i32x4(even_a, even_b, 0xdd);
    r[4 + c] = _mm512_shuffle_i32x4(odd_a, odd_b, 0x88);
    r[12 + c] = _mm512_shuffle_i32x4(odd_a, odd_b, 0xdd);
  }
}

/// Words that hold elements of two rows side by side: pairs along the depth for 16 columns.
inline __m512i pair_words(__m256i even, __m256i odd) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/// Tiles of the transpose as a right factor: depth runs along the source's columns.
/// Tile (row block of 16, column block of 32) at index row_block * (columns / 32) + column_block.
inline void pack_transposed_pairs(Source from, std::int64_t rows, std::int64_t columns, char* to) {
  for (std::int64_t i = 0; i < rows; i += tile_side)
    for (std::int64_t j = 0; j < columns; j += tile_depth, to += tile_bytes) {
      __m512i word[16];
      for (int t = 0; t < 16; ++t) word[t] = from.at(i + t, j);
      transpose_words(word);
      for (int t = 0; t < 16; ++t) _mm512_store_si512(to + t * 64, word[t]);
    }
}

/// Tiles of the matrix as a right factor: depth runs along the source's rows.
/// Tile (row block of 32, column block of 16) at index row_block * (columns / 16) + column_block.
inline void pack_pairs(Source from, std::int64_t rows, std::int64_t columns, char* to) {
  for (std::int64_t i = 0; i < rows; i += tile_depth)
    for (std::int64_t j = 0; j < columns; j += 2 * tile_side, to += 2 * tile_bytes)
      for (int p = 0; p < 16; ++p) {
        const __m512i even = from.at(i + 2 * p, j), odd = from.at(i + 2 * p + 1, j);
        _mm512_store_si512(to + p * 64, pair_words(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd)));
        _mm512_store_si512(to + tile_bytes + p * 64,
                           pair_words(_mm512_extracti64x4_epi64(even, 1), _mm512_extracti64x4_epi64(odd, 1)));
      }
}

/// to [rows, columns] <- from, zero-padded: a left factor.
inline void pack_rows(Source from, std::int64_t rows, std::int64_t columns, bf16* to) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; j += 32) _mm512_store_si512(to + i * columns + j, from.at(i, j));
}

/// to [columns, ld] <- from transposed, zero-padded: a left factor.
inline void pack_transposed_rows(Source from, std::int64_t rows, std::int64_t columns, bf16* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < rows; i += tile_side)
    for (std::int64_t j = 0; j < columns; j += tile_depth) {
      __m512i word[16];
      for (int t = 0; t < 16; ++t) word[t] = from.at(i + t, j);
      transpose_words(word);
      for (int t = 0; t < 16; ++t) {
        bf16* even = to + (j + 2 * t) * ld + i;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(even), _mm512_cvtepi32_epi16(word[t]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + ld),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(word[t], 16)));
      }
    }
}

inline __m256i to_bf16(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

/// 2^x to 3e-6, below the rounding of a bf16 weight.
inline __m512 exp2_16(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.33335581e-3F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61812911e-3F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55041087e-2F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147181e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, n);
}

}  // namespace
}  // namespace lockstep::kernels
