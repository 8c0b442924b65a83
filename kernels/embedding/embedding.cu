#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned list_threads = 256;
constexpr unsigned sum_threads = 128;
constexpr std::int64_t tokens_per_range = 512;  // whose positions are listed together before they are summed
LOCKSTEP_HOST_DEVICE inline std::int64_t ranges_of(const EmbeddingBackwardArgs& args) {
  return (args.vocabulary + tokens_per_range - 1) / tokens_per_range;
}

template <class T, int N>
__global__ void __launch_bounds__(256) forward_kernel(EmbeddingForwardArgs args) {
  const std::int64_t row_packs = args.cols / N, packs = args.batch * args.length * row_packs;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += stride) {
    const std::int64_t p = i / row_packs, c = i % row_packs * N;
    const std::int32_t token = args.tokens[p];
    Values<N> y;
    if (token >= 0 && token < args.vocabulary) {
      y = load_pack<N>(static_cast<const T*>(args.wte) + token * args.cols + c);
    } else {
      for (int k = 0; k < N; ++k) y.v[k] = not_a_number;  // seen as a non-finite loss, instead of a fault
    }
    if (args.wpe != nullptr) {
      const auto position = load_pack<N>(static_cast<const T*>(args.wpe) + p % args.length * args.cols + c);
      for (int k = 0; k < N; ++k) y.v[k] += position.v[k];
    }
    store_pack<N>(static_cast<T*>(args.y) + p * args.cols + c, y);
  }
}

/// Scratch of the backward pass: for each range of tokens the place of its first position, and the positions grouped
/// by range, ascending within one.
struct Lists {
  std::int32_t* begin;  ///< [ranges + 1]
  std::int32_t* positions;
};
__device__ __forceinline__ Lists lists_of(const EmbeddingBackwardArgs& args) {
  auto* words = static_cast<std::int32_t*>(args.scratch);
  return {words, words + ranges_of(args) + 1};
}

/// One block a range: finds its place by counting the tokens below the range, then lists its own positions.
__global__ void __launch_bounds__(list_threads) list_positions_kernel(EmbeddingBackwardArgs args) {
  LOCKSTEP_SHARED(int, shared, [32]);
  const Lists lists = lists_of(args);
  const std::int64_t count = args.batch * args.length;
  const std::int64_t first = std::int64_t{blockIdx.x} * tokens_per_range;
  const std::int64_t end = args.vocabulary - first < tokens_per_range ? args.vocabulary : first + tokens_per_range;
  int below = 0;
  for (std::int64_t p = threadIdx.x; p < count; p += blockDim.x)
    if (args.tokens[p] >= 0 && args.tokens[p] < first) ++below;
  int place = block_reduce<Sum>(below, 0, shared);
  if (threadIdx.x == 0) lists.begin[blockIdx.x] = place;
  for (std::int64_t base = 0; base < count; base += blockDim.x) {
    const std::int64_t p = base + threadIdx.x;
    const bool mine = p < count && args.tokens[p] >= first && args.tokens[p] < end;
    __syncthreads();  // the counts of the batch before may still be read
    const Rank rank = block_rank(mine, shared);
    if (mine) lists.positions[place + rank.before] = static_cast<std::int32_t>(p);
    place += rank.total;
  }
  if (threadIdx.x == 0 && blockIdx.x + 1 == gridDim.x) lists.begin[gridDim.x] = place;
}

/// One block for a row of dwte and a tile of columns: picks its token's positions out of the range's list, a batch at a
/// time and in order, and adds their rows.
template <class T, int N>
__global__ void __launch_bounds__(sum_threads) sum_tokens_kernel(EmbeddingBackwardArgs args) {
  LOCKSTEP_SHARED(int, shared, [32]);
  LOCKSTEP_SHARED(std::int32_t, found, [sum_threads]);
  const Lists lists = lists_of(args);
  const std::int64_t token = blockIdx.x, c = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  const std::int64_t range = token / tokens_per_range;
  const bool padding = token >= args.vocabulary;  // no list has them
  const std::int32_t begin = padding ? 0 : lists.begin[range], end = padding ? 0 : lists.begin[range + 1];
  const T* dy = static_cast<const T*>(args.dy) + c;
  Values<N> sum{};
  int uses = 0;
  for (std::int32_t base = begin; base < end; base += static_cast<std::int32_t>(blockDim.x)) {
    const std::int32_t i = base + static_cast<std::int32_t>(threadIdx.x);
    const std::int32_t p = i < end ? lists.positions[i] : 0;
    const bool mine = i < end && args.tokens[p] == token;
    const Rank rank = block_rank(mine, shared);
    if (mine) found[rank.before] = p;  // block_rank has waited for the readers of the batch before
    __syncthreads();
    if (c < args.cols)
      for (int j = 0; j < rank.total; ++j) {
        const auto d = load_pack<N>(dy + found[j] * args.cols);
        for (int k = 0; k < N; ++k) sum.v[k] += d.v[k];
      }
    uses += rank.total;
  }
  const bool accumulate = args.accumulate_dwte != 0;
  if ((uses == 0 && accumulate) || c >= args.cols) return;
  for (int k = 0; k < N; ++k) {
    float& out = args.dwte[token * args.cols + c + k];
    out = accumulate ? out + sum.v[k] : sum.v[k];
  }
}

template <class T, int N>
__global__ void __launch_bounds__(sum_threads) sum_batch_kernel(EmbeddingBackwardArgs args, std::int64_t rows) {
  const std::int64_t packs = rows * args.cols / N, stride = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t used = args.length * args.cols / N;  // packs; those behind it get zeros
  const bool accumulate = args.accumulate_dwpe != 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < packs; i += stride) {
    Values<N> sum{};
    for (std::int64_t b = 0; b < args.batch && i < used; ++b) {
      const auto d = load_pack<N>(static_cast<const T*>(args.dy) + b * args.length * args.cols + i * N);
      for (int k = 0; k < N; ++k) sum.v[k] += d.v[k];
    }
    for (int k = 0; k < N; ++k) {
      float& out = args.dwpe[i * N + k];
      out = accumulate ? out + sum.v[k] : sum.v[k];
    }
  }
}

}  // namespace

void embedding_forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.wte, args.wpe, args.y}),
            [&]<class T, int N>(Packed<T, N>) {
              const std::int64_t packs = args.batch * args.length * args.cols / N;
              launch(exec, forward_kernel<T, N>, dim3(blocks_for(packs, 256)), dim3(256), 0, args);
            });
}

std::size_t embedding_backward_scratch(const EmbeddingBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(ranges_of(args) + 1 + args.batch * args.length) * sizeof(std::int32_t);
}

void embedding_backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  launch(exec, list_positions_kernel, dim3(static_cast<unsigned>(ranges_of(args))), dim3(list_threads), 0, args);
  with_pack(args.dtype, packable(args.dtype, args.cols, {args.dy}), [&]<class T, int N>(Packed<T, N>) {
    const unsigned threads = block_threads(args.cols / N, sum_threads);
    const auto tiles = static_cast<unsigned>((args.cols / N + threads - 1) / threads);
    const std::int64_t token_rows = args.accumulate_dwte != 0 ? args.vocabulary : args.wte_rows;
    launch(exec, sum_tokens_kernel<T, N>, dim3(static_cast<unsigned>(token_rows), tiles), dim3(threads), 0, args);
    const std::int64_t rows = args.accumulate_dwpe != 0 ? args.length : args.wpe_rows;
    if (args.dwpe != nullptr && rows > 0)
      launch(exec, sum_batch_kernel<T, N>, dim3(blocks_for(rows * args.cols / N, sum_threads)), dim3(sum_threads), 0,
             args, rows);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
