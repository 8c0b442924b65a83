#include "kernels/matmul/matmul_amx.hpp"

#if !defined(__AVX512F__)

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
bool amx_weight_gradient(const Exec&, const MatmulArgs&) { return false; }
}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS

#else

// gcc 12's own AVX-512 intrinsics start from a deliberately uninitialised register.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <cstdint>

#include "core/isa.hpp"
#include "kernels/element.hpp"
#include "kernels/matmul/matmul_onednn.hpp"

// Both factors have the contraction along their rows, which is how no tile wants it: a is turned tile by tile, b put
// into pairs. A thread packs a panel of b that stays in its core's second-level cache; then each block of 32 rows of a
// is packed into the first-level cache and meets the whole panel.
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16")
#include "kernels/attention/amx_tiles.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

// Measured on two shapes each of n_embd 384 and 768, one core of a Xeon with 2 MiB of L2: depths of 512 and more, or
// panels of fewer columns, are 5 to 40 % slower.
constexpr std::int64_t panel_depth = 256;
constexpr std::int64_t panel_columns = 1536;
constexpr std::int64_t step_bytes = 2 * tile_bytes;  ///< of a block of 32 rows or columns, per step of depth

bool usable() {
  static const bool answer = has_amx_bf16() && __builtin_cpu_supports("avx512bf16") != 0 && tiles_permitted();
  return answer;
}

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
std::int64_t blocks_of(std::int64_t n) { return (n + block_side - 1) / block_side; }

/// Columns [column, column + 32) of `from`, depth along its rows from `row`, as tiles of pairs: two a step.
/// word[p] of each half holds rows 2 p and 2 p + 1 side by side.
inline void pair_step(const Source& from, std::int64_t row, std::int64_t column, __m512i low[16], __m512i high[16]) {
  for (int p = 0; p < 16; ++p) {
    const __m512i even = from.at(row + 2 * p, column), odd = from.at(row + 2 * p + 1, column);
    low[p] = pair_words(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd));
    high[p] = pair_words(_mm512_extracti64x4_epi64(even, 1), _mm512_extracti64x4_epi64(odd, 1));
  }
}

void store_step(const __m512i low[16], const __m512i high[16], char* to) {
  for (int p = 0; p < 16; ++p) {
    _mm512_store_si512(to + p * 64, low[p]);
    _mm512_store_si512(to + tile_bytes + p * 64, high[p]);
  }
}

/// A right factor: 32 columns of b.
void pack_right(const Source& from, std::int64_t row, std::int64_t steps, std::int64_t column, char* to) {
  __m512i low[16], high[16];
  for (std::int64_t s = 0; s < steps; ++s, to += step_bytes) {
    pair_step(from, row + s * tile_depth, column, low, high);
    store_step(low, high, to);
  }
}

/// A left factor: 32 columns of a, which are rows of the product. Rows of a left tile are columns of a right one.
void pack_left(const Source& from, std::int64_t row, std::int64_t steps, std::int64_t column, char* to) {
  __m512i low[16], high[16];
  for (std::int64_t s = 0; s < steps; ++s, to += step_bytes) {
    pair_step(from, row + s * tile_depth, column, low, high);
    transpose_words(low);
    transpose_words(high);
    store_step(low, high, to);
  }
}

/// c [rows, columns], at most [32, 32], (+)= the block.
void add_block(const float* block, std::int64_t rows, std::int64_t columns, float* c, std::int64_t ldc,
               bool accumulate) {
  for (std::int64_t j = 0; j < columns; j += 16) {
    const auto mask = static_cast<__mmask16>(columns - j < 16 ? (1U << (columns - j)) - 1U : 0xffffU);
    for (std::int64_t i = 0; i < rows; ++i) {
      const __m512 sum = _mm512_loadu_ps(block + i * block_side + j);
      float* const to = c + i * ldc + j;
      _mm512_mask_storeu_ps(to, mask, accumulate ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum) : sum);
    }
  }
}

/// How threads divide the blocks of c, `down` x `across` of them.
struct Grid {
  int down = 1, across = 1;
};

/// Each thread packs what its part of c needs, so that none waits for another or reads what another one's cache holds:
/// the division that leaves the least to pack, to turn a block of a being twice the work of pairing one of b.
Grid divide(int threads, std::int64_t down, std::int64_t across) {
  Grid best;
  std::int64_t least = INT64_MAX;
  for (int used = threads; used > threads / 2; --used)
    for (int d = 1; d <= used; ++d) {
      if (used % d != 0 || d > down || used / d > across) continue;
      const std::int64_t rows = (down + d - 1) / d, columns = (across + used / d - 1) / (used / d);
      // Work and packing of the busiest thread, a product of 32 x 32 being about a quarter of turning a block.
      const std::int64_t cost = rows * columns + 8 * rows + 4 * columns;
      if (cost < least) least = cost, best = {d, used / d};
    }
  return best;
}

/// Rows [first_row, last_row) and columns [first, last) of the product, by one thread.
struct Part {
  std::int64_t first_row, last_row, first, last;
};

void part_of_product(const MatmulArgs& args, const Part& part, char* left, char* right) {
  const Source a = {static_cast<const bf16*>(args.a), args.lda, args.k, args.m};
  const Source b = {static_cast<const bf16*>(args.b), args.ldb, args.k, args.n};
  alignas(64) float edge[block_side * block_side];
  for (std::int64_t panel = part.first; panel < part.last; panel += panel_columns)
    for (std::int64_t deep = 0; deep < args.k; deep += panel_depth) {
      const std::int64_t steps = (smaller(panel_depth, args.k - deep) + tile_depth - 1) / tile_depth;
      const std::int64_t across = blocks_of(smaller(panel_columns, part.last - panel));
      const bool accumulate = deep > 0 || args.accumulate != 0;
      for (std::int64_t j = 0; j < across; ++j)
        pack_right(b, deep, steps, panel + j * block_side, right + j * steps * step_bytes);
      for (std::int64_t row = part.first_row; row < part.last_row; row += block_side) {
        pack_left(a, deep, steps, row, left);
        const Factor left_factor = {left, 64, tile_bytes, step_bytes};
        const std::int64_t rows = smaller(block_side, part.last_row - row);
        for (std::int64_t j = 0; j < across; ++j) {
          const Factor right_factor = {right + j * steps * step_bytes, 64, tile_bytes, step_bytes};
          const std::int64_t column = panel + j * block_side, columns = smaller(block_side, part.last - column);
          float* const block = static_cast<float*>(args.c) + row * args.ldc + column;
          if (rows == block_side && columns == block_side) {
            block_product(left_factor, right_factor, steps, block, args.ldc, accumulate);
          } else {
            block_product(left_factor, right_factor, steps, edge, block_side, false);
            add_block(edge, rows, columns, block, args.ldc, accumulate);
          }
        }
      }
    }
}

}  // namespace

bool amx_weight_gradient(const Exec& exec, const MatmulArgs& args) {
  const bool is_one = args.dtype == DType::bf16 && args.c_dtype == DType::f32 && args.transpose_a != 0 &&
                      args.transpose_b == 0 && args.bias == nullptr && args.k >= tile_depth;
  if (!is_one || !usable()) return false;
  const std::int64_t down = blocks_of(args.m), across = blocks_of(args.n);
  const Grid grid = divide(exec.threads, down, across);
  const int threads = grid.down * grid.across;
  const std::int64_t most_steps = (smaller(args.k, panel_depth) + tile_depth - 1) / tile_depth;
  const std::int64_t left_bytes = most_steps * step_bytes;
  const std::int64_t right_bytes =
      smaller((across + grid.across - 1) / grid.across, panel_columns / block_side) * left_bytes;
  char* const scratch =
      reinterpret_cast<char*>(matmul_scratch(threads * (left_bytes + right_bytes) / std::int64_t{sizeof(float)}));

#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const TileUse tiles;
    const std::int64_t i = t / grid.across, j = t % grid.across;
    const Part part = {down * i / grid.down * block_side, smaller(args.m, down * (i + 1) / grid.down * block_side),
                       across * j / grid.across * block_side,
                       smaller(args.n, across * (j + 1) / grid.across * block_side)};
    char* const own = scratch + t * (left_bytes + right_bytes);
    part_of_product(args, part, own, own + left_bytes);
  }
  return true;
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
#pragma GCC pop_options

#endif
