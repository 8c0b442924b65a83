// Bytes an element of y or dy. Forward: reads a row of each table (those of wpe stay in the cache) and writes y.
// Backward: dy is read once for dwte and once for dwpe; dwte is written where it is replaced, and rows in use are read
// and written (two more times 4 bytes) where it is added to. The sort of the positions moves 24 bytes a position and
// pass, of which there is one for each 8 bits of the vocabulary's size.
#include <utility>

#include "kernels/declare.hpp"
#include "kernels/device/key_sort.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned row_warps = 8;    ///< of a block that walks a position a warp
constexpr unsigned blocks_each = 5;  ///< of a multiprocessor

/// A warp a position.
template <class T, int N>
__global__ void __launch_bounds__(row_warps * 32, resident_blocks(row_warps * 32, blocks_each))
    forward_kernel(EmbeddingForwardArgs args) {
  const std::int64_t count = args.batch * args.length, stride = std::int64_t{gridDim.x} * row_warps;
  std::int64_t p = std::int64_t{blockIdx.x} * row_warps + threadIdx.x / 32;
  // The place in its sequence, and how far a stride goes on. The only two divisions.
  std::int64_t place = p % args.length;
  const std::int64_t place_step = stride % args.length;
  for (; p < count; p += stride) {
    const std::int32_t token = args.tokens[p];
    const bool known = token >= 0 && token < args.vocabulary;
    const T* const word = static_cast<const T*>(args.wte) + (known ? token * args.cols : 0);
    T* const y = static_cast<T*>(args.y) + p * args.cols;
    for (std::int64_t c = std::int64_t{threadIdx.x % 32} * N; c < args.cols; c += 32 * N) {
      auto sum = load_pack<N>(word + c);
      if (!known)
        for (int k = 0; k < N; ++k) sum.v[k] = not_a_number;  // seen as a non-finite loss, instead of a fault
      if (args.wpe != nullptr) sum = sum + load_pack<N>(static_cast<const T*>(args.wpe) + place * args.cols + c);
      store_pack<N>(y + c, sum);
    }
    place += place_step;
    if (place >= args.length) place -= args.length;
  }
}

// The backward pass sorts the positions by their token, stably, and cuts the sorted positions into pieces. Where all
// positions of a token lie in one piece its sum is complete there; the sums of pieces that share a token are added in
// order. So the order of additions is that of the positions and of the pieces, whatever the grid.

constexpr std::int64_t positions_per_piece = 64;
constexpr unsigned sum_threads = 128;

/// Scratch of the backward pass, for `count` positions.
struct Scratch {
  SortLists lists;  ///< the keys are tokens; what is outside the vocabulary has the token `vocabulary`
  float* partial;   ///< [pieces][2][cols]: sums of a piece's first and last token where other pieces share it
};
struct ScratchBytes {
  std::size_t list, counts, partial;
  [[nodiscard]] std::size_t all() const { return 4 * list + counts + partial; }
};
ScratchBytes bytes_of(const EmbeddingBackwardArgs& args) noexcept {
  const std::int64_t count = args.batch * args.length;
  const auto rounded = [](std::int64_t words) { return static_cast<std::size_t>(divided(words, 4)) * 16; };
  return {rounded(count), rounded(sort_counts(count)), rounded(2 * divided(count, positions_per_piece) * args.cols)};
}
Scratch scratch_of(const EmbeddingBackwardArgs& args) noexcept {
  const ScratchBytes bytes = bytes_of(args);
  auto* at = static_cast<unsigned char*>(args.scratch);
  const auto take = [&at](std::size_t size) { return std::exchange(at, at + size); };
  Scratch scratch{};
  for (int i = 0; i < 2; ++i) {
    scratch.lists.keys[i] = reinterpret_cast<std::int32_t*>(take(bytes.list));
    scratch.lists.positions[i] = reinterpret_cast<std::int32_t*>(take(bytes.list));
  }
  scratch.lists.counts = reinterpret_cast<std::int32_t*>(take(bytes.counts));
  scratch.partial = reinterpret_cast<float*>(take(bytes.partial));
  return scratch;
}

/// The sorted positions and what is made of them.
struct SumsByToken {
  const void* dy;
  const std::int32_t* keys;
  const std::int32_t* positions;
  float* partial;
  float* dwte;
  std::int64_t cols;
  std::int32_t count;
  std::int32_t vocabulary;
  bool accumulate;
};

template <int N>
__device__ __forceinline__ void contribute_row(const SumsByToken& args, std::int32_t token, std::int64_t c,
                                               const Values<N>& sum) {
  float* const out = args.dwte + token * args.cols + c;
  store_pack<N>(out, args.accumulate ? load_pack<N>(out) + sum : sum);
}

/// One block a piece and a tile of columns.
template <class T, int N>
__global__ void __launch_bounds__(sum_threads, 3) sum_pieces_kernel(SumsByToken args) {
  LOCKSTEP_SHARED(std::int32_t, keys, [positions_per_piece + 2]);  // with one neighbour on either side; -1: none
  LOCKSTEP_SHARED(std::int32_t, positions, [positions_per_piece]);
  const auto first = static_cast<std::int32_t>(blockIdx.x * positions_per_piece);
  const std::int32_t left = args.count - first;
  const std::int32_t count = left < positions_per_piece ? left : static_cast<std::int32_t>(positions_per_piece);
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < count + 2; i += static_cast<std::int32_t>(blockDim.x)) {
    const std::int32_t at = first + i - 1;
    keys[i] = at >= 0 && at < args.count ? args.keys[at] : -1;
    if (i < count) positions[i] = args.positions[first + i];
  }
  __syncthreads();
  const std::int64_t c = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  if (c >= args.cols) return;
  const T* const dy = static_cast<const T*>(args.dy) + c;
  float* const partial = args.partial + blockIdx.x * 2 * args.cols + c;
  const bool is_shared_first = keys[0] == keys[1];  // with the piece before
  const bool is_shared_last = keys[count + 1] == keys[count];
  constexpr int together = 8;  // rows whose loads are under way at once
  Values<N> sum{};
  bool is_first = true;  // the token of `sum` is the piece's first
  for (std::int32_t base = 0; base < count; base += together) {
    Pack<T, N> rows[together];
    for (int j = 0; j < together; ++j)
      if (base + j < count) rows[j] = load<N>(dy + positions[base + j] * args.cols);
    for (int j = 0; j < together; ++j) {
      const std::int32_t i = base + j;
      if (i >= count) continue;
      sum = sum + widen(rows[j]);
      const std::int32_t token = keys[i + 1];
      const bool is_end = i + 1 == count;
      if (!is_end && keys[i + 2] == token) continue;
      if (token == args.vocabulary) {
        // Outside: in no row.
      } else if (is_first && is_shared_first) {
        store_pack<N>(partial, sum);
      } else if (is_end && is_shared_last) {
        store_pack<N>(partial + args.cols, sum);
      } else {
        contribute_row(args, token, c, sum);
      }
      is_first = false;
      sum = Values<N>{};
    }
  }
}

/// One block a piece and a tile of columns: adds the partial sums of the token that begins in this piece and goes on in
/// the next ones.
template <int N>
__global__ void __launch_bounds__(sum_threads) join_pieces_kernel(SumsByToken args) {
  constexpr auto each = static_cast<std::int32_t>(positions_per_piece);
  const auto piece = static_cast<std::int32_t>(blockIdx.x);
  const std::int32_t first = piece * each, next = first + each;
  const std::int64_t c = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  if (next >= args.count || c >= args.cols) return;
  const std::int32_t token = args.keys[next - 1];
  const bool begins_here = first == 0 || args.keys[first - 1] != token;
  if (token == args.vocabulary || args.keys[next] != token || !begins_here) return;
  std::int32_t last = piece + 1;  // of the pieces that begin with the token, by bisection
  for (std::int32_t end = (args.count + each - 1) / each; end - last > 1;) {
    const std::int32_t middle = last + (end - last) / 2;
    (args.keys[middle * each] == token ? last : end) = middle;
  }
  const float* const partial = args.partial + c;
  Values<N> sum = load_pack<N>(partial + (2 * std::int64_t{piece} + 1) * args.cols);
#pragma unroll 4
  for (std::int64_t other = piece + 1; other <= last; ++other)
    sum = sum + load_pack<N>(partial + 2 * other * args.cols);
  contribute_row(args, token, c, sum);
}

template <int N>
__global__ void __launch_bounds__(256) clear_kernel(float* to, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count / N; i += stride)
    store_pack<N>(to + i * N, Values<N>{});
}

template <class T, int N>
__global__ void __launch_bounds__(sum_threads) sum_batch_kernel(EmbeddingBackwardArgs args, std::int64_t rows) {
  const std::int64_t packs = rows * args.cols / N, stride = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t used = args.length * args.cols / N;  // packs; those behind it get zeros
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += stride) {
    Values<N> sum{};
    if (i < used) {
      const T* const dy = static_cast<const T*>(args.dy) + i * N;
#pragma unroll 4
      for (std::int64_t b = 0; b < args.batch; ++b) sum = sum + widen(load_once<N>(dy + b * args.length * args.cols));
    }
    float* const out = args.dwpe + i * N;
    store_pack<N>(out, args.accumulate_dwpe != 0 ? load_pack<N>(out) + sum : sum);
  }
}

}  // namespace

void embedding_forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  with_pack(
      args.dtype, packable(args.dtype, args.cols, {args.wte, args.wpe, args.y}), [&]<class T, int N>(Packed<T, N>) {
        const auto blocks = static_cast<std::size_t>(divided(args.batch * args.length, row_warps));
        launch(exec, forward_kernel<T, N>, dim3(persistent_blocks(blocks, blocks_each)), dim3(row_warps * 32), 0, args);
      });
}

std::size_t embedding_backward_scratch(const EmbeddingBackwardArgs& args) noexcept { return bytes_of(args).all(); }

void embedding_backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  const std::int64_t count = args.batch * args.length;
  const bool packs = packable(args.dtype, args.cols, {args.dy, args.dwte, args.dwpe, args.scratch});
  with_pack(args.dtype, packs, [&]<class T, int N>(Packed<T, N>) {
    // Where every row is replaced, those that no position uses become zero.
    if (args.accumulate_dwte == 0 && args.wte_rows > 0)
      launch(exec, clear_kernel<N>,
             dim3(persistent_blocks(static_cast<std::size_t>(divided(args.wte_rows * args.cols / N, 256)), 8)),
             dim3(256), 0, args.dwte, args.wte_rows * args.cols);
    if (count > 0) {
      const Scratch scratch = scratch_of(args);
      const int sorted = sort_by_key(exec, args.tokens, count, args.vocabulary, scratch.lists);
      const SumsByToken sums = {args.dy,
                                scratch.lists.keys[sorted],
                                scratch.lists.positions[sorted],
                                scratch.partial,
                                args.dwte,
                                args.cols,
                                static_cast<std::int32_t>(count),
                                static_cast<std::int32_t>(args.vocabulary),
                                args.accumulate_dwte != 0};
      const unsigned threads = block_threads(args.cols / N, sum_threads);
      const dim3 grid(static_cast<unsigned>(divided(count, positions_per_piece)),
                      static_cast<unsigned>(divided(args.cols / N, threads)));
      launch(exec, sum_pieces_kernel<T, N>, grid, dim3(threads), 0, sums);
      launch(exec, join_pieces_kernel<N>, grid, dim3(threads), 0, sums);
    }
    const std::int64_t rows = args.accumulate_dwpe != 0 ? args.length : args.wpe_rows;
    if (args.dwpe != nullptr && rows > 0)
      launch(exec, sum_batch_kernel<T, N>, dim3(blocks_for(rows * args.cols / N, sum_threads)), dim3(sum_threads), 0,
             args, rows);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
