#include <omp.h>

#include <cmath>

#include "kernels/attention/attention_amx.hpp"
#include "kernels/attention/tile_product.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"
#include "kernels/matmul/matmul_onednn.hpp"

// One head of one sequence is one thread's work: its keys and values are widened to fp32 once and stay in the
// second-level cache, queries pass in tiles, and of the score matrix only one tile's rows exist. Row groups skip the
// masked part. 16-bit inputs with AMX go to attention_amx_cpu.cpp.
namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

// 8 row groups: scores of 48 x 256 are 48 KiB.
constexpr std::int64_t tile_rows = 8 * row_group;
constexpr float log2_e = 1.44269504F;
constexpr float ln_2 = 0.693147181F;

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// The sizes of one head's buffers.
struct Sizes {
  std::int64_t length, size;   ///< tokens, head size
  std::int64_t rows, columns;  ///< both with room to spare for whole groups
  std::int64_t scores;         ///< leading dimension of scores and of transposed buffers: not a power of two, which
                               ///< would put a column's lines into few cache sets
  float scale;                 ///< of the scores, for powers of 2

  Sizes(std::int64_t tokens, std::int64_t head_size)
      : length(tokens),
        size(head_size),
        rows(round_up(tokens, 48)),
        columns(round_up(head_size, column_group)),
        scores(rows + column_group),
        scale(log2_e / std::sqrt(static_cast<float>(head_size))) {}
  [[nodiscard]] std::int64_t matrix() const { return rows * columns; }
  [[nodiscard]] std::int64_t transposed() const { return columns * scores; }
  [[nodiscard]] std::int64_t tile() const { return tile_rows * columns; }
  [[nodiscard]] std::int64_t tile_scores() const { return tile_rows * scores; }
};

/// to [padded_rows, columns] <- from [rows, size], the rest zero.
template <class T>
void load_rows(const Sizes& sizes, const T* from, std::int64_t stride, std::int64_t rows, std::int64_t padded_rows,
               float* to) {
  for (std::int64_t t = 0; t < padded_rows; ++t) {
    float* target = to + t * sizes.columns;
    const T* source = from + t * stride;
    const std::int64_t filled = t < rows ? sizes.size : 0;
    for_lanes(filled, [&](std::int64_t d, auto count) { store(target + d, load(source + d, count), count); });
    for (std::int64_t d = filled; d < sizes.columns; ++d) target[d] = 0.0F;
  }
}

template <class T>
void store_rows(const Sizes& sizes, const float* from, std::int64_t rows, T* to, std::int64_t stride) {
  for (std::int64_t t = 0; t < rows; ++t) {
    const float* source = from + t * sizes.columns;
    T* target = to + t * stride;
    for_lanes(sizes.size, [&](std::int64_t d, auto count) { store(target + d, load(source + d, count), count); });
  }
}

/// scores [rows, <= first + rows] <- left [rows, size] right_t [size, ...], causal from query `first`.
void score_tile(const Sizes& sizes, std::int64_t first, std::int64_t rows, const float* left, const float* right_t,
                float* scores) {
  tile_product(
      rows, first + rows, sizes.size, {left, sizes.columns, 1}, right_t, sizes.scores, scores, sizes.scores, false,
      [=](std::int64_t row) { return first + row + row_group; }, [&](std::int64_t) { return sizes.size; });
}

/// out [rows, columns] <- weights [rows, <= first + rows] right [..., columns].
void weighted_rows(const Sizes& sizes, std::int64_t first, std::int64_t rows, const float* weights, const float* right,
                   float* out) {
  tile_product(
      rows, sizes.columns, first + rows, {weights, sizes.scores, 1}, right, sizes.columns, out, sizes.columns, false,
      [&](std::int64_t) { return sizes.columns; }, [=](std::int64_t row) { return first + row + row_group; });
}

/// out [first + rows, columns] += weights^T right [rows, columns].
void weighted_columns(const Sizes& sizes, std::int64_t first, std::int64_t rows, const float* weights,
                      const float* right, float* out) {
  tile_product(
      first + rows, sizes.columns, rows, {weights, 1, sizes.scores}, right, sizes.columns, out, sizes.columns, true,
      [&](std::int64_t) { return sizes.columns; }, [=](std::int64_t) { return rows; });
}

/// Columns of a tile's scores that products may read.
std::int64_t read_columns(std::int64_t first, std::int64_t rows) {
  return round_up(first + rows, column_group) + column_group;
}

/// In place: weights 2^(score - top), zero from column `query` + 1 to `end`; returns their sum.
float softmax_row(float* row, std::int64_t query, std::int64_t end, float scale, float* top_out) {
  const std::int64_t columns = round_up(query + 1, lanes);
  // Past the diagonal, up to whole vectors, stand scores that neither are the largest nor weigh anything.
  for (std::int64_t j = query + 1; j < columns; ++j) row[j] = -INFINITY;
  Floats top = load(row, AllLanes{});
  for (std::int64_t j = lanes; j < columns; j += lanes) top = larger(load(row + j, AllLanes{}), top);
  const float offset = max_lanes(top) * scale;
  const Floats scales = splat(scale), offsets = splat(-offset);
  Floats sum{};
  for (std::int64_t j = 0; j < columns; j += lanes) {
    const Floats weight = exp2_bounded(multiply_add(load(row + j, AllLanes{}), scales, offsets));
    store(row + j, weight, AllLanes{});
    sum += weight;
  }
  for (std::int64_t j = query + 1; j < end; ++j) row[j] = 0.0F;
  *top_out = offset;
  return sum_lanes(sum);
}

template <class T>
void forward_head(const Sizes& sizes, const T* qkv, std::int64_t width, T* y, float* lse, float* work) {
  float* key_t = work;
  float* value = key_t + sizes.transposed();
  float* query = value + sizes.matrix();
  float* out = query + sizes.tile();
  float* scores = out + sizes.tile();

  load_rows(sizes, qkv + width, 3 * width, sizes.length, sizes.rows, value);
  transpose(sizes.rows, sizes.columns, value, sizes.columns, key_t, sizes.scores);
  load_rows(sizes, qkv + 2 * width, 3 * width, sizes.length, sizes.rows, value);

  for (std::int64_t first = 0; first < sizes.length; first += tile_rows) {
    const std::int64_t rows = smaller(tile_rows, sizes.length - first);
    load_rows(sizes, qkv + first * 3 * width, 3 * width, rows, tile_rows, query);
    score_tile(sizes, first, rows, query, key_t, scores);
    float inverse[tile_rows];
    for (std::int64_t i = 0; i < rows; ++i) {
      float top = 0.0F;
      const float sum = softmax_row(scores + i * sizes.scores, first + i, read_columns(first, rows), sizes.scale, &top);
      inverse[i] = 1.0F / sum;
      lse[first + i] = top * ln_2 + std::log(sum);
    }
    weighted_rows(sizes, first, rows, scores, value, out);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t d = 0; d < sizes.columns; ++d) out[i * sizes.columns + d] *= inverse[i];
    store_rows(sizes, out, rows, y + first * width, width);
  }
}

/// Row `query` of a tile: scores -> weights p, products dp -> the gradient of the scores; both zero past the diagonal.
void backward_row(float* p, float* dp, std::int64_t query, std::int64_t end, float scale, float lse, float delta) {
  const Floats scales = splat(scale), offsets = splat(-lse * log2_e);
  const Floats deltas = splat(delta), factors = splat(scale * ln_2);
  for (std::int64_t j = 0; j <= query; j += lanes) {
    const Floats weight = exp2_bounded(multiply_add(load(p + j, AllLanes{}), scales, offsets));
    const Floats gradient = weight * (load(dp + j, AllLanes{}) - deltas) * factors;
    store(p + j, weight, AllLanes{});
    store(dp + j, gradient, AllLanes{});
  }
  for (std::int64_t j = query + 1; j < end; ++j) p[j] = dp[j] = 0.0F;
}

/// delta [rows] <- sum over the head of y dy.
void row_products(const Sizes& sizes, const float* y, const float* dy, std::int64_t rows, float* delta) {
  for (std::int64_t i = 0; i < rows; ++i)
    delta[i] = sum_over(sizes.columns, [&](std::int64_t d, auto count) {
      return load(y + i * sizes.columns + d, count) * load(dy + i * sizes.columns + d, count);
    });
}

template <class T>
void backward_head(const Sizes& sizes, const T* dy, const T* qkv, std::int64_t width, const T* y, const float* lse,
                   T* dqkv, float* delta, float* work) {
  float* key = work;
  float* key_t = key + sizes.matrix();
  float* value_t = key_t + sizes.transposed();
  float* d_key = value_t + sizes.transposed();
  float* d_value = d_key + sizes.matrix();
  float* query = d_value + sizes.matrix();
  float* d_query = query + sizes.tile();
  float* d_out = d_query + sizes.tile();
  float* weights = d_out + sizes.tile();
  float* products = weights + sizes.tile_scores();

  load_rows(sizes, qkv + 2 * width, 3 * width, sizes.length, sizes.rows, key);
  transpose(sizes.rows, sizes.columns, key, sizes.columns, value_t, sizes.scores);
  load_rows(sizes, qkv + width, 3 * width, sizes.length, sizes.rows, key);
  transpose(sizes.rows, sizes.columns, key, sizes.columns, key_t, sizes.scores);
  for (std::int64_t i = 0; i < 2 * sizes.matrix(); ++i) d_key[i] = 0.0F;

  for (std::int64_t first = 0; first < sizes.length; first += tile_rows) {
    const std::int64_t rows = smaller(tile_rows, sizes.length - first);
    load_rows(sizes, y + first * width, width, rows, tile_rows, query);
    load_rows(sizes, dy + first * width, width, rows, tile_rows, d_out);
    row_products(sizes, query, d_out, rows, delta + first);
    load_rows(sizes, qkv + first * 3 * width, 3 * width, rows, tile_rows, query);
    score_tile(sizes, first, rows, query, key_t, weights);
    score_tile(sizes, first, rows, d_out, value_t, products);
    for (std::int64_t i = 0; i < rows; ++i)
      backward_row(weights + i * sizes.scores, products + i * sizes.scores, first + i, read_columns(first, rows),
                   sizes.scale, lse[first + i], delta[first + i]);
    weighted_rows(sizes, first, rows, products, key, d_query);
    weighted_columns(sizes, first, rows, products, query, d_key);
    weighted_columns(sizes, first, rows, weights, d_out, d_value);
    store_rows(sizes, d_query, rows, dqkv + first * 3 * width, 3 * width);
  }
  store_rows(sizes, d_key, sizes.length, dqkv + width, 3 * width);
  store_rows(sizes, d_value, sizes.length, dqkv + 2 * width, 3 * width);
}

template <class T>
void forward(const Exec& exec, const AttentionForwardArgs& args) {
  const Sizes sizes(args.length, args.head_size);
  const std::int64_t width = args.heads * args.head_size;
  const std::int64_t heads = args.batch * args.heads;
  const int threads = static_cast<int>(smaller(exec.threads, heads));
  const std::int64_t floats = sizes.transposed() + sizes.matrix() + 2 * sizes.tile() + sizes.tile_scores();
  float* work = matmul_scratch(threads * floats);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* mine = work + omp_get_thread_num() * floats;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < heads; ++i) {
      const std::int64_t b = i / args.heads, h = i % args.heads;
      forward_head(sizes, static_cast<const T*>(args.qkv) + b * args.length * 3 * width + h * args.head_size, width,
                   static_cast<T*>(args.y) + b * args.length * width + h * args.head_size, args.lse + i * args.length,
                   mine);
    }
  }
}

template <class T>
void backward(const Exec& exec, const AttentionBackwardArgs& args) {
  const Sizes sizes(args.length, args.head_size);
  const std::int64_t width = args.heads * args.head_size;
  const std::int64_t heads = args.batch * args.heads;
  const int threads = static_cast<int>(smaller(exec.threads, heads));
  const std::int64_t floats = 2 * sizes.transposed() + 3 * sizes.matrix() + 3 * sizes.tile() + 2 * sizes.tile_scores();
  float* work = matmul_scratch(threads * floats);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* mine = work + omp_get_thread_num() * floats;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < heads; ++i) {
      const std::int64_t b = i / args.heads, h = i % args.heads;
      const std::int64_t packed = b * args.length * 3 * width + h * args.head_size;
      const std::int64_t plain = b * args.length * width + h * args.head_size;
      backward_head(sizes, static_cast<const T*>(args.dy) + plain, static_cast<const T*>(args.qkv) + packed, width,
                    static_cast<const T*>(args.y) + plain, args.lse + i * args.length,
                    static_cast<T*>(args.dqkv) + packed, static_cast<float*>(args.scratch) + i * args.length, mine);
    }
  }
}

}  // namespace

void attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  if (args.batch * args.heads * args.length == 0) return;
  if (args.dtype == DType::f32) return forward<float>(exec, args);
  if (args.dtype == DType::f16) return forward<f16>(exec, args);
  if (amx_attention_forward(exec, args)) return;
  forward<bf16>(exec, args);
}

/// Each query's delta, [batch, heads, length].
std::size_t attention_backward_scratch(const AttentionBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(args.batch * args.heads * args.length) * sizeof(float);
}

void attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  if (args.batch * args.heads * args.length == 0) return;
  if (args.dtype == DType::f32) return backward<float>(exec, args);
  if (args.dtype == DType::f16) return backward<f16>(exec, args);
  if (amx_attention_backward(exec, args)) return;
  backward<bf16>(exec, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
