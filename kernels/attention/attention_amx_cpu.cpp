#include "kernels/attention/attention_amx.hpp"

#if !defined(__AVX512F__)

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
bool amx_attention_forward(const Exec&, const AttentionForwardArgs&) { return false; }
bool amx_attention_backward(const Exec&, const AttentionBackwardArgs&) { return false; }
}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS

#else

// gcc 12's own AVX-512 intrinsics start from a deliberately uninitialised register.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <omp.h>

#include <cmath>

#include "core/isa.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/matmul/matmul_onednn.hpp"

// One head of one sequence is one thread's work. Both passes keep a strip of scores, never the whole matrix, and skip
// masked blocks of 32 x 32. Weights and score gradients are rounded to bf16 before they are multiplied, sums are fp32.
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16")
#include "kernels/attention/amx_tiles.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

// Keys whose score gradients are kept for the query gradient: two steps of depth halve the passes over its sums.
constexpr std::int64_t key_strip = 64;
constexpr std::int64_t strip_blocks = key_strip / block_side;
constexpr float log2_e = 1.44269504F;
constexpr float ln_2 = 0.693147181F;

bool usable() {
  static const bool answer = has_amx_bf16() && __builtin_cpu_supports("avx512bf16") != 0 && tiles_permitted();
  return answer;
}

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

struct Sizes {
  std::int64_t length, size;   ///< tokens, head size
  std::int64_t rows, columns;  ///< both rounded up to whole blocks
  std::int64_t strip;          ///< leading dimension of anything along the tokens; no power of two
  float scale;                 ///< of the scores, for powers of 2

  Sizes(std::int64_t tokens, std::int64_t head_size)
      : length(tokens),
        size(head_size),
        rows(round_up(tokens, block_side)),
        columns(round_up(head_size, block_side)),
        strip(rows + block_side),
        scale(log2_e / std::sqrt(static_cast<float>(head_size))) {}
  [[nodiscard]] std::int64_t matrix_bytes() const { return rows * columns * 2; }
  [[nodiscard]] Factor left_rows(const bf16* data, std::int64_t row) const {
    return {data + row * columns, columns * 2, tile_side * columns * 2, 64};
  }
  /// Right factor from pack_transposed_pairs, block of 32 rows from `row`.
  [[nodiscard]] Factor right_transposed(const char* data, std::int64_t row) const {
    const std::int64_t per_row = columns / tile_depth * tile_bytes;
    return {data + row / tile_side * per_row, 64, per_row, tile_bytes};
  }
  /// Right factor from pack_pairs: depth from `row`, block of 32 columns from `column`.
  [[nodiscard]] Factor right_pairs(const char* data, std::int64_t row, std::int64_t column) const {
    const std::int64_t per_step = columns / tile_side * tile_bytes;
    return {data + row / tile_depth * per_step + column / tile_side * tile_bytes, 64, tile_bytes, per_step};
  }
  [[nodiscard]] Factor left_strip(const bf16* data, std::int64_t row, std::int64_t column) const {
    return {data + row * strip + column, strip * 2, tile_side * strip * 2, 64};
  }
};

/// Cuts one thread's scratch memory into 64-byte aligned pieces; without memory it only counts.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  T* take(std::int64_t bytes) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(bytes, 64);
    return piece;
  }
  [[nodiscard]] std::int64_t used() const { return used_; }

 private:
  char* base_;
  std::int64_t used_ = 0;
};

struct ForwardWork {
  char* key_t;
  char* value;
  bf16* query;
  bf16* weights;
  float* scores;
  float* out;
  std::int64_t bytes;

  ForwardWork(const Sizes& s, char* base) {
    Carver carver(base);
    key_t = carver.take<char>(s.matrix_bytes());
    value = carver.take<char>(s.matrix_bytes());
    query = carver.take<bf16>(block_side * s.columns * 2);
    weights = carver.take<bf16>(block_side * s.strip * 2);
    scores = carver.take<float>(block_side * s.strip * 4);
    out = carver.take<float>(block_side * s.columns * 4);
    bytes = carver.used();
  }
};

/// weights [end] <- 2^(score - top) for keys 0 to `query`, then zero; returns the sum before rounding.
float softmax_row(const float* scores, bf16* weights, std::int64_t query, std::int64_t end, float scale,
                  float* top_out) {
  const std::int64_t last = query / 16 * 16;
  const auto tail = static_cast<__mmask16>((2U << (query - last)) - 1U);
  __m512 top = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), tail, scores + last);
  for (std::int64_t j = 0; j < last; j += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(scores + j));
  const float offset = _mm512_reduce_max_ps(top) * scale;
  const __m512 scales = _mm512_set1_ps(scale), offsets = _mm512_set1_ps(-offset);
  __m512 sum = _mm512_setzero_ps();
  for (std::int64_t j = 0; j < end; j += 16) {
    const __mmask16 valid = j < last ? __mmask16{0xffff} : (j == last ? tail : __mmask16{0});
    const __m512 score = _mm512_maskz_loadu_ps(valid, scores + j);
    const __m512 weight = _mm512_maskz_mov_ps(valid, exp2_16(_mm512_fmadd_ps(score, scales, offsets)));
    sum = _mm512_add_ps(sum, weight);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + j), to_bf16(weight));
  }
  *top_out = offset;
  return _mm512_reduce_add_ps(sum);
}

/// to [size] <- from * factor.
void store_row(const float* from, float factor, std::int64_t size, bf16* to) {
  const __m512 factors = _mm512_set1_ps(factor);
  for (std::int64_t d = 0; d < size; d += 16) {
    const auto mask = static_cast<__mmask16>(size - d >= 16 ? 0xffffU : (1U << (size - d)) - 1U);
    _mm256_mask_storeu_epi16(to + d, mask, to_bf16(_mm512_mul_ps(_mm512_loadu_ps(from + d), factors)));
  }
}

void forward_head(const Sizes& s, const bf16* qkv, std::int64_t width, bf16* y, float* lse, const ForwardWork& work) {
  const std::int64_t stride = 3 * width;
  pack_transposed_pairs({qkv + width, stride, s.length, s.size}, s.rows, s.columns, work.key_t);
  pack_pairs({qkv + 2 * width, stride, s.length, s.size}, s.rows, s.columns, work.value);
  for (std::int64_t first = 0; first < s.length; first += block_side) {
    const std::int64_t end = first + block_side;
    const std::int64_t rows = smaller(block_side, s.length - first);
    pack_rows({qkv + first * stride, stride, rows, s.size}, block_side, s.columns, work.query);
    for (std::int64_t k = 0; k < end; k += block_side)
      block_product(s.left_rows(work.query, 0), s.right_transposed(work.key_t, k), s.columns / tile_depth,
                    work.scores + k, s.strip, false);
    float inverse[block_side];
    for (std::int64_t i = 0; i < block_side; ++i) {
      float top = 0.0F;
      const float sum =
          softmax_row(work.scores + i * s.strip, work.weights + i * s.strip, first + i, end, s.scale, &top);
      inverse[i] = 1.0F / sum;
      if (i < rows) lse[first + i] = top * ln_2 + std::log(sum);
    }
    for (std::int64_t d = 0; d < s.columns; d += block_side)
      block_product(s.left_strip(work.weights, 0, 0), s.right_pairs(work.value, 0, d), end / tile_depth, work.out + d,
                    s.columns, false);
    for (std::int64_t i = 0; i < rows; ++i)
      store_row(work.out + i * s.columns, inverse[i], s.size, y + (first + i) * width);
  }
}

struct BackwardWork {
  bf16* key;
  bf16* value;
  bf16* key_t;
  char* query_t;
  char* d_out_t;
  char* query;
  char* d_out;
  bf16* weights;
  bf16* gradients;
  char* gradient_pairs;
  float* d_query_t;
  float* lse;
  float* delta;
  float* scores;
  float* products;
  float* out;
  std::int64_t bytes;

  BackwardWork(const Sizes& s, char* base) {
    Carver carver(base);
    key = carver.take<bf16>(s.matrix_bytes());
    value = carver.take<bf16>(s.matrix_bytes());
    key_t = carver.take<bf16>(s.columns * s.strip * 2);
    query_t = carver.take<char>(s.matrix_bytes());
    d_out_t = carver.take<char>(s.matrix_bytes());
    query = carver.take<char>(s.matrix_bytes());
    d_out = carver.take<char>(s.matrix_bytes());
    weights = carver.take<bf16>(block_side * s.strip * 2);
    gradients = carver.take<bf16>(block_side * s.strip * 2);
    gradient_pairs = carver.take<char>(key_strip * s.rows * 2);
    d_query_t = carver.take<float>(s.columns * s.strip * 4);
    lse = carver.take<float>(s.rows * 4);
    delta = carver.take<float>(s.rows * 4);
    scores = carver.take<float>(block_side * block_side * 4);
    products = carver.take<float>(block_side * block_side * 4);
    out = carver.take<float>(block_side * s.columns * 4);
    bytes = carver.used();
  }
};

/// One block of 32 keys x 32 queries of the transposed scores: weights, gradients of the scores by rows, and the
/// latter again in pairs along the keys. Past the diagonal and past the last query all are zero.
void backward_block(const Sizes& s, std::int64_t key, std::int64_t query, const BackwardWork& work, char* pairs) {
  const __m512 scale = _mm512_set1_ps(s.scale), factor = _mm512_set1_ps(s.scale * ln_2);
  for (std::int64_t part = 0; part < block_side; part += tile_side) {
    const std::int64_t first = query + part;
    const __m512 lse = _mm512_loadu_ps(work.lse + first), delta = _mm512_loadu_ps(work.delta + first);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)), lane);
    const __mmask16 exists = _mm512_cmplt_epi32_mask(index, _mm512_set1_epi32(static_cast<int>(s.length)));
    char* tile = pairs + first / tile_side * tile_bytes;
    for (std::int64_t row = 0; row < block_side; row += 2) {
      __m256i gradient[2];
      for (std::int64_t r = row; r < row + 2; ++r) {
        const __mmask16 valid =
            _mm512_mask_cmpge_epi32_mask(exists, index, _mm512_set1_epi32(static_cast<int>(key + r)));
        const __m512 score = _mm512_loadu_ps(work.scores + r * block_side + part);
        const __m512 product = _mm512_loadu_ps(work.products + r * block_side + part);
        const __m512 weight = _mm512_maskz_mov_ps(valid, exp2_16(_mm512_fmsub_ps(score, scale, lse)));
        const __m512 change = _mm512_maskz_mul_ps(valid, _mm512_mul_ps(weight, factor), _mm512_sub_ps(product, delta));
        gradient[r - row] = to_bf16(change);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(work.weights + r * s.strip + first), to_bf16(weight));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(work.gradients + r * s.strip + first), gradient[r - row]);
      }
      _mm512_store_si512(tile + row / 2 * 64, pair_words(gradient[0], gradient[1]));
    }
  }
}

/// to rows [key, key + 32) <- strip [32, queries from key] right.
void reduce_over_queries(const Sizes& s, const bf16* strip, const char* right, std::int64_t key, float* out, bf16* to,
                         std::int64_t stride) {
  for (std::int64_t d = 0; d < s.columns; d += block_side)
    block_product(s.left_strip(strip, 0, key), s.right_pairs(right, key, d), (s.rows - key) / tile_depth, out + d,
                  s.columns, false);
  const std::int64_t rows = smaller(block_side, s.length - key);
  for (std::int64_t i = 0; i < rows; ++i) store_row(out + i * s.columns, 1.0F, s.size, to + (key + i) * stride);
}

/// to [length, size] <- from [columns, strip] transposed.
void store_transposed(const Sizes& s, const float* from, bf16* to, std::int64_t stride) {
  for (std::int64_t i = 0; i < s.length; i += tile_side)
    for (std::int64_t d = 0; d < s.size; d += tile_side) {
      __m512i word[16];
      for (int t = 0; t < 16; ++t) word[t] = _mm512_loadu_si512(from + (d + t) * s.strip + i);
      transpose_words(word);
      const auto mask = static_cast<__mmask16>(s.size - d >= 16 ? 0xffffU : (1U << (s.size - d)) - 1U);
      const std::int64_t rows = smaller(tile_side, s.length - i);
      for (std::int64_t t = 0; t < rows; ++t)
        _mm256_mask_storeu_epi16(to + (i + t) * stride + d, mask, to_bf16(_mm512_castsi512_ps(word[t])));
    }
}

void backward_head(const Sizes& s, const bf16* dy, const bf16* qkv, std::int64_t width, const bf16* y, const float* lse,
                   bf16* dqkv, float* delta, const BackwardWork& work) {
  const std::int64_t stride = 3 * width;
  const Source query{qkv, stride, s.length, s.size}, key{qkv + width, stride, s.length, s.size};
  const Source value{qkv + 2 * width, stride, s.length, s.size}, d_out{dy, width, s.length, s.size};
  pack_rows(key, s.rows, s.columns, work.key);
  pack_rows(value, s.rows, s.columns, work.value);
  pack_transposed_rows(key, s.rows, s.columns, work.key_t, s.strip);
  pack_transposed_pairs(query, s.rows, s.columns, work.query_t);
  pack_transposed_pairs(d_out, s.rows, s.columns, work.d_out_t);
  pack_pairs(query, s.rows, s.columns, work.query);
  pack_pairs(d_out, s.rows, s.columns, work.d_out);
  for (std::int64_t i = 0; i < s.rows; ++i) work.lse[i] = i < s.length ? lse[i] * log2_e : 0.0F;
  for (std::int64_t i = 0; i < s.length; ++i)
    delta[i] = work.delta[i] = sum_over(s.size, [&](std::int64_t d, auto count) {
      return load(y + i * width + d, count) * load(dy + i * width + d, count);
    });
  for (std::int64_t i = s.length; i < s.rows; ++i) work.delta[i] = 0.0F;

  for (std::int64_t strip = 0; strip < s.rows; strip += key_strip) {
    const std::int64_t blocks = smaller(strip_blocks, (s.rows - strip) / block_side);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t first = strip + b * block_side;
      char* pairs = work.gradient_pairs + b * s.rows * block_side * 2;
      for (std::int64_t q = first; q < s.rows; q += block_side) {
        block_product(s.left_rows(work.key, first), s.right_transposed(work.query_t, q), s.columns / tile_depth,
                      work.scores, block_side, false);
        block_product(s.left_rows(work.value, first), s.right_transposed(work.d_out_t, q), s.columns / tile_depth,
                      work.products, block_side, false);
        backward_block(s, first, q, work, pairs);
      }
      reduce_over_queries(s, work.gradients, work.query, first, work.out, dqkv + width, stride);
      reduce_over_queries(s, work.weights, work.d_out, first, work.out, dqkv + 2 * width, stride);
    }
    for (std::int64_t q = strip; q < s.rows; q += block_side) {
      const std::int64_t steps = smaller(blocks, (q - strip) / block_side + 1);
      const Factor right{work.gradient_pairs + q / tile_side * tile_bytes, 64, tile_bytes, s.rows * block_side * 2};
      for (std::int64_t d = 0; d < s.columns; d += block_side)
        block_product(s.left_strip(work.key_t, d, strip), right, steps, work.d_query_t + d * s.strip + q, s.strip,
                      strip > 0);
    }
  }
  store_transposed(s, work.d_query_t, dqkv, stride);
}

}  // namespace

bool amx_attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  if (!usable()) return false;
  const Sizes sizes(args.length, args.head_size);
  const std::int64_t width = args.heads * args.head_size;
  const std::int64_t heads = args.batch * args.heads;
  const int threads = static_cast<int>(smaller(exec.threads, heads));
  const std::int64_t bytes = ForwardWork(sizes, nullptr).bytes;
  char* scratch = reinterpret_cast<char*>(matmul_scratch(threads * bytes / 4));
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const TileUse tiles;
    const ForwardWork work(sizes, scratch + omp_get_thread_num() * bytes);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < heads; ++i) {
      const std::int64_t b = i / args.heads, h = i % args.heads;
      forward_head(sizes, static_cast<const bf16*>(args.qkv) + b * args.length * 3 * width + h * args.head_size, width,
                   static_cast<bf16*>(args.y) + b * args.length * width + h * args.head_size,
                   args.lse + i * args.length, work);
    }
  }
  return true;
}

bool amx_attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  if (!usable()) return false;
  const Sizes sizes(args.length, args.head_size);
  const std::int64_t width = args.heads * args.head_size;
  const std::int64_t heads = args.batch * args.heads;
  const int threads = static_cast<int>(smaller(exec.threads, heads));
  const std::int64_t bytes = BackwardWork(sizes, nullptr).bytes;
  char* scratch = reinterpret_cast<char*>(matmul_scratch(threads * bytes / 4));
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const TileUse tiles;
    const BackwardWork work(sizes, scratch + omp_get_thread_num() * bytes);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < heads; ++i) {
      const std::int64_t b = i / args.heads, h = i % args.heads;
      const std::int64_t packed = b * args.length * 3 * width + h * args.head_size;
      const std::int64_t plain = b * args.length * width + h * args.head_size;
      backward_head(sizes, static_cast<const bf16*>(args.dy) + plain, static_cast<const bf16*>(args.qkv) + packed,
                    width, static_cast<const bf16*>(args.y) + plain, args.lse + i * args.length,
                    static_cast<bf16*>(args.dqkv) + packed, static_cast<float*>(args.scratch) + i * args.length, work);
    }
  }
  return true;
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS

#pragma GCC pop_options

#endif
