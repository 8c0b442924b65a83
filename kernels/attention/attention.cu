// Attention in tiles, in fp32 on the ordinary cores: made to be right and to need no library. All sums have an order
// that the sizes alone fix, and nothing longer than a tile is stored but y, lse and, backwards, one float a query.
//
// A block of 8 warps has a tile of rows (queries, or keys for their gradients) and walks over the tiles of 32 on the
// other side. A warp has some of the rows; while it makes their scores a lane has a row of the other tile, and while
// it multiplies by them a lane has columns of the head.
//
// Source: Dao, "FlashAttention-2", 2023, algorithms 1 and 2; the gradient in two kernels, each with rows of its own, so
// that no two blocks add to one place.
#include "kernels/attention/flash_attention.hpp"
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr int lanes = 32;  ///< threads of a warp, and rows of a tile that is walked over
constexpr int warps = 8;
constexpr unsigned threads = lanes * warps;

/// Sizes as the kernels need them, in ints: checked by the host.
struct Sizes {
  int length;
  int heads;
  int head;   ///< columns of a head
  int tiles;  ///< blocks a head
  float scale;
};

/// Which rows a block has, and where its head begins.
struct Place {
  int first;            ///< row of the block's tile
  std::int64_t row;     ///< elements from one token to the next in y and dy, where they begin at `plain`
  std::int64_t plain;   ///< element (b, 0, h, 0)
  std::int64_t column;  ///< of the head in a row
  std::int64_t rows;    ///< of lse and delta: element (b, h, 0)

  __device__ Place(const Sizes& sizes, int rows_per_block) {
    const int head = static_cast<int>(blockIdx.x) / sizes.tiles, b = head / sizes.heads;
    first = static_cast<int>(blockIdx.x) % sizes.tiles * rows_per_block;
    row = std::int64_t{sizes.heads} * sizes.head;
    column = std::int64_t{head % sizes.heads} * sizes.head;
    plain = std::int64_t{b} * sizes.length * row + column;
    rows = std::int64_t{head} * sizes.length;
  }
  /// Where the head begins in qkv, where a token has three times as many elements; part: 0 query, 1 key, 2 value.
  [[nodiscard]] __device__ std::int64_t packed(int part) const { return 3 * (plain - column) + part * row + column; }
};

__device__ __forceinline__ int warp_number() { return static_cast<int>(threadIdx.x) / lanes; }
__device__ __forceinline__ int lane_number() { return static_cast<int>(threadIdx.x) % lanes; }
__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }

/// to [count][pitch] <- rows [first, first + count) of a head, zeros past the sequence's end.
template <class T>
__device__ __forceinline__ void load_rows(const T* from, std::int64_t stride, const Sizes& sizes, int first, int count,
                                          float* to, int pitch) {
  for (int r = warp_number(); r < count; r += warps)
    for (int d = lane_number(); d < sizes.head; d += lanes)
      to[r * pitch + d] = first + r < sizes.length ? static_cast<float>(from[(first + r) * stride + d]) : 0.0F;
}

/// product[r] <- the warp's row r, of mine [Rows][head], times this lane's row.
template <int Rows>
__device__ __forceinline__ void dot_rows(const float* mine, const float* lane_row, int head, float (&product)[Rows]) {
  for (int r = 0; r < Rows; ++r) product[r] = 0.0F;
  for (int d = 0; d < head; ++d) {
    const float x = lane_row[d];
    for (int r = 0; r < Rows; ++r) product[r] += mine[r * head + d] * x;
  }
}

/// The columns d = lane, lane + 32, ... of Rows rows: sum[r][s] += weights [Rows][32] times tile [32][pitch], over
/// the tile's rows [begin[r], end[r]) only: what a mask hides is not multiplied by zero, or an infinity would show.
template <int Rows, int Slots>
__device__ __forceinline__ void add_product(const float* weights, const float* tile, int pitch, int head,
                                            const int (&begin)[Rows], const int (&end)[Rows],
                                            float (&sum)[Rows][Slots]) {
  const int lane = lane_number();
#pragma unroll 4  // all of it would spill registers
  for (int j = 0; j < lanes; ++j)
    for (int r = 0; r < Rows; ++r) {
      if (j < begin[r] || j >= end[r]) continue;
      const float weight = weights[r * lanes + j];
      for (int s = 0; s < Slots; ++s)
        if (lane + s * lanes < head) sum[r][s] += weight * tile[j * pitch + lane + s * lanes];
    }
}

/// out row <- sum * factor.
template <class T, int Slots>
__device__ __forceinline__ void store_row(T* out, int head, const float (&sum)[Slots], float factor) {
  for (int s = 0; s < Slots; ++s) {
    const int d = lane_number() + s * lanes;
    if (d < head) out[d] = T(sum[s] * factor);
  }
}

/// A block has Rows * 8 queries and walks over the keys that they see, with the softmax's largest score and its sum
/// carried along.
template <class T, int Rows, int Slots>
__global__ void __launch_bounds__(threads) forward_kernel(AttentionForwardArgs args, Sizes sizes) {
  LOCKSTEP_DYNAMIC_SHARED(float, shared);
  const int pitch = sizes.head + 1, block_rows = Rows * warps;
  float* queries = shared;                          // [block_rows][head]
  float* tile = queries + block_rows * sizes.head;  // [32][pitch]: keys, then values
  float* all_weights = tile + lanes * pitch;        // [block_rows][32]
  const Place place(sizes, block_rows);
  const T* qkv = static_cast<const T*>(args.qkv);
  const std::int64_t stride = 3 * place.row;
  const int warp = warp_number(), lane = lane_number(), own = place.first + warp * Rows;
  const float* mine = queries + warp * Rows * sizes.head;
  float* weights = all_weights + warp * Rows * lanes;

  float top[Rows], total[Rows], sum[Rows][Slots];
  for (int r = 0; r < Rows; ++r) {
    top[r] = -infinity;
    total[r] = 0.0F;
    for (int s = 0; s < Slots; ++s) sum[r][s] = 0.0F;
  }
  load_rows(qkv + place.packed(0), stride, sizes, place.first, block_rows, queries, sizes.head);
  const int last = smaller(place.first + block_rows, sizes.length);  // keys behind it are seen by none
  for (int first = 0; first < last; first += lanes) {
    __syncthreads();
    load_rows(qkv + place.packed(1), stride, sizes, first, lanes, tile, pitch);
    __syncthreads();
    float score[Rows];
    int begin[Rows], end[Rows];
    dot_rows<Rows>(mine, tile + lane * pitch, sizes.head, score);
    for (int r = 0; r < Rows; ++r) {
      begin[r] = 0;
      end[r] = own + r < sizes.length ? smaller(lanes, own + r - first + 1) : 0;
      const bool seen = lane < end[r];
      const float x = seen ? score[r] * sizes.scale : -infinity;
      const float new_top = fmaxf(top[r], warp_reduce<Max>(x));
      const float weight = seen ? expf(x - new_top) : 0.0F;
      const float kept = expf(top[r] - new_top);
      top[r] = new_top;
      total[r] = total[r] * kept + warp_reduce<Sum>(weight);
      for (int s = 0; s < Slots; ++s) sum[r][s] *= kept;
      weights[r * lanes + lane] = weight;
    }
    __syncthreads();
    load_rows(qkv + place.packed(2), stride, sizes, first, lanes, tile, pitch);
    __syncthreads();
    add_product<Rows, Slots>(weights, tile, pitch, sizes.head, begin, end, sum);
  }
  for (int r = 0; r < Rows; ++r) {
    if (own + r >= sizes.length) continue;
    store_row(static_cast<T*>(args.y) + place.plain + (own + r) * place.row, sizes.head, sum[r], 1.0F / total[r]);
    if (lane == 0) args.lse[place.rows + own + r] = top[r] + logf(total[r]);
  }
}

/// delta [batch, heads, length] <- sum over the head of y dy: one warp a query.
template <class T>
__global__ void __launch_bounds__(threads) delta_kernel(AttentionBackwardArgs args, Sizes sizes, std::int64_t rows) {
  const std::int64_t i = std::int64_t{blockIdx.x} * warps + warp_number();
  if (i >= rows) return;  // a warp as a whole
  const std::int64_t head = i / sizes.length, t = i % sizes.length;
  const std::int64_t b = head / sizes.heads, h = head % sizes.heads;
  const std::int64_t at = ((b * sizes.length + t) * sizes.heads + h) * sizes.head;
  float sum = 0.0F;
  for (int d = lane_number(); d < sizes.head; d += lanes)
    sum += static_cast<float>(static_cast<const T*>(args.y)[at + d]) *
           static_cast<float>(static_cast<const T*>(args.dy)[at + d]);
  sum = warp_reduce<Sum>(sum);
  if (lane_number() == 0) static_cast<float*>(args.scratch)[i] = sum;
}

/// A block has Rows * 8 queries and walks over the keys that they see: dq.
template <class T, int Rows, int Slots>
__global__ void __launch_bounds__(threads) query_gradient_kernel(AttentionBackwardArgs args, Sizes sizes) {
  LOCKSTEP_DYNAMIC_SHARED(float, shared);
  const int pitch = sizes.head + 1, block_rows = Rows * warps;
  float* queries = shared;                               // [block_rows][head]
  float* out_grads = queries + block_rows * sizes.head;  // [block_rows][head]
  float* keys = out_grads + block_rows * sizes.head;     // [32][pitch]
  float* values = keys + lanes * pitch;                  // [32][pitch]
  float* all_grads = values + lanes * pitch;             // [block_rows][32]: of the scores
  const Place place(sizes, block_rows);
  const T* qkv = static_cast<const T*>(args.qkv);
  const float* delta = static_cast<const float*>(args.scratch) + place.rows;
  const std::int64_t stride = 3 * place.row;
  const int warp = warp_number(), lane = lane_number(), own = place.first + warp * Rows;
  float* grads = all_grads + warp * Rows * lanes;

  float sum[Rows][Slots];
  for (int r = 0; r < Rows; ++r)
    for (int s = 0; s < Slots; ++s) sum[r][s] = 0.0F;
  load_rows(qkv + place.packed(0), stride, sizes, place.first, block_rows, queries, sizes.head);
  load_rows(static_cast<const T*>(args.dy) + place.plain, place.row, sizes, place.first, block_rows, out_grads,
            sizes.head);
  const int last = smaller(place.first + block_rows, sizes.length);
  for (int first = 0; first < last; first += lanes) {
    __syncthreads();
    load_rows(qkv + place.packed(1), stride, sizes, first, lanes, keys, pitch);
    load_rows(qkv + place.packed(2), stride, sizes, first, lanes, values, pitch);
    __syncthreads();
    float score[Rows], product[Rows];
    int begin[Rows], end[Rows];
    dot_rows<Rows>(queries + warp * Rows * sizes.head, keys + lane * pitch, sizes.head, score);
    dot_rows<Rows>(out_grads + warp * Rows * sizes.head, values + lane * pitch, sizes.head, product);
    for (int r = 0; r < Rows; ++r) {
      begin[r] = 0;
      end[r] = own + r < sizes.length ? smaller(lanes, own + r - first + 1) : 0;
      float grad = 0.0F;
      if (lane < end[r]) {
        const float weight = expf(score[r] * sizes.scale - args.lse[place.rows + own + r]);
        grad = weight * (product[r] - delta[own + r]) * sizes.scale;
      }
      grads[r * lanes + lane] = grad;
    }
    __syncwarp();
    add_product<Rows, Slots>(grads, keys, pitch, sizes.head, begin, end, sum);
  }
  T* out = static_cast<T*>(args.dqkv) + place.packed(0);
  for (int r = 0; r < Rows; ++r)
    if (own + r < sizes.length) store_row(out + (own + r) * stride, sizes.head, sum[r], 1.0F);
}

/// A block has Rows * 8 keys and walks over the queries that see them: dk and dv.
template <class T, int Rows, int Slots>
__global__ void __launch_bounds__(threads) key_gradient_kernel(AttentionBackwardArgs args, Sizes sizes) {
  LOCKSTEP_DYNAMIC_SHARED(float, shared);
  const int pitch = sizes.head + 1, block_rows = Rows * warps;
  float* keys = shared;                                 // [block_rows][head]
  float* values = keys + block_rows * sizes.head;       // [block_rows][head]
  float* queries = values + block_rows * sizes.head;    // [32][pitch]
  float* out_grads = queries + lanes * pitch;           // [32][pitch]
  float* all_weights = out_grads + lanes * pitch;       // [block_rows][32]
  float* all_grads = all_weights + block_rows * lanes;  // [block_rows][32]: of the scores
  const Place place(sizes, block_rows);
  const T* qkv = static_cast<const T*>(args.qkv);
  const float* delta = static_cast<const float*>(args.scratch) + place.rows;
  const std::int64_t stride = 3 * place.row;
  const int warp = warp_number(), lane = lane_number(), own = place.first + warp * Rows;
  float* weights = all_weights + warp * Rows * lanes;
  float* grads = all_grads + warp * Rows * lanes;

  float key_sum[Rows][Slots], value_sum[Rows][Slots];
  for (int r = 0; r < Rows; ++r)
    for (int s = 0; s < Slots; ++s) key_sum[r][s] = value_sum[r][s] = 0.0F;
  load_rows(qkv + place.packed(1), stride, sizes, place.first, block_rows, keys, sizes.head);
  load_rows(qkv + place.packed(2), stride, sizes, place.first, block_rows, values, sizes.head);
  for (int first = place.first / lanes * lanes; first < sizes.length; first += lanes) {
    __syncthreads();
    load_rows(qkv + place.packed(0), stride, sizes, first, lanes, queries, pitch);
    load_rows(static_cast<const T*>(args.dy) + place.plain, place.row, sizes, first, lanes, out_grads, pitch);
    __syncthreads();
    float score[Rows], product[Rows];
    int begin[Rows], end[Rows];
    dot_rows<Rows>(keys + warp * Rows * sizes.head, queries + lane * pitch, sizes.head, score);
    dot_rows<Rows>(values + warp * Rows * sizes.head, out_grads + lane * pitch, sizes.head, product);
    for (int r = 0; r < Rows; ++r) {
      begin[r] = larger(0, own + r - first);
      end[r] = own + r < sizes.length ? smaller(lanes, sizes.length - first) : 0;
      float weight = 0.0F, grad = 0.0F;
      if (lane >= begin[r] && lane < end[r]) {
        weight = expf(score[r] * sizes.scale - args.lse[place.rows + first + lane]);
        grad = weight * (product[r] - delta[first + lane]) * sizes.scale;
      }
      weights[r * lanes + lane] = weight;
      grads[r * lanes + lane] = grad;
    }
    __syncwarp();
    add_product<Rows, Slots>(grads, queries, pitch, sizes.head, begin, end, key_sum);
    add_product<Rows, Slots>(weights, out_grads, pitch, sizes.head, begin, end, value_sum);
  }
  T* key_out = static_cast<T*>(args.dqkv) + place.packed(1);
  T* value_out = static_cast<T*>(args.dqkv) + place.packed(2);
  for (int r = 0; r < Rows; ++r) {
    if (own + r >= sizes.length) continue;
    store_row(key_out + (own + r) * stride, sizes.head, key_sum[r], 1.0F);
    store_row(value_out + (own + r) * stride, sizes.head, value_sum[r], 1.0F);
  }
}

template <class Args>
Sizes sizes_of(const Args& args, int rows_per_block) {
  const std::int64_t tiles = (args.length + rows_per_block - 1) / rows_per_block;
  check_flash_attention(args.batch, args.heads, args.length, args.head_size, tiles);
  return {static_cast<int>(args.length), static_cast<int>(args.heads), static_cast<int>(args.head_size),
          static_cast<int>(tiles), 1.0F / sqrtf(static_cast<float>(args.head_size))};
}

/// Floats of shared memory: `own` tiles of the block's rows, `walked` ones of 32 rows, `scores` of both.
std::size_t shared_bytes(const Sizes& sizes, int block_rows, int own, int walked, int scores) {
  const int floats = own * block_rows * sizes.head + walked * lanes * (sizes.head + 1) + scores * block_rows * lanes;
  return static_cast<std::size_t>(floats) * sizeof(float);
}

template <class T, int Rows, int Slots>
void backward(const Exec& exec, const AttentionBackwardArgs& args) {
  constexpr int block_rows = Rows * warps;
  const Sizes sizes = sizes_of(args, block_rows);
  const dim3 blocks(static_cast<unsigned>(args.batch * args.heads * sizes.tiles));
  const std::int64_t rows = args.batch * args.heads * args.length;
  launch(exec, delta_kernel<T>, dim3(static_cast<unsigned>((rows + warps - 1) / warps)), dim3(threads), 0, args, sizes,
         rows);
  launch(exec, query_gradient_kernel<T, Rows, Slots>, blocks, dim3(threads), shared_bytes(sizes, block_rows, 2, 2, 1),
         args, sizes);
  launch(exec, key_gradient_kernel<T, Rows, Slots>, blocks, dim3(threads), shared_bytes(sizes, block_rows, 2, 2, 2),
         args, sizes);
}

}  // namespace

void flash_attention_forward(const Exec& exec, const AttentionForwardArgs& args) {
  constexpr int rows = 4;
  const Sizes sizes = sizes_of(args, rows * warps);
  const dim3 blocks(static_cast<unsigned>(args.batch * args.heads * sizes.tiles));
  const std::size_t shared = shared_bytes(sizes, rows * warps, 1, 1, 1);
  with_element_type(args.dtype, [&]<class T>(T*) {
    if (args.head_size <= 64)
      launch(exec, forward_kernel<T, rows, 2>, blocks, dim3(threads), shared, args, sizes);
    else
      launch(exec, forward_kernel<T, rows, 4>, blocks, dim3(threads), shared, args, sizes);
  });
}

/// Each query's delta.
std::size_t flash_attention_backward_scratch(const AttentionBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(args.batch * args.heads * args.length) * sizeof(float);
}

void flash_attention_backward(const Exec& exec, const AttentionBackwardArgs& args) {
  // As many rows a block as 48 KiB of shared memory take.
  with_element_type(args.dtype, [&]<class T>(T*) {
    if (args.head_size <= 64)
      backward<T, 4, 2>(exec, args);
    else
      backward<T, 1, 4>(exec, args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
