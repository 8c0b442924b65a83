// Bytes an element: that of every gradient source, read once. The finish reads 16 bytes a leaf of 16,384 elements.
#include "kernels/declare.hpp"
#include "kernels/device/gradient.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned every_lane = 0xffffffffU;
constexpr int vector = 4;
constexpr unsigned leaf_threads = norm_lanes / vector;
constexpr unsigned leaf_blocks = 16;  ///< of a multiprocessor; leaves a thread 64 registers
static_assert(leaf_threads == 64, "two warps: the second's lanes are added to the first's");

/// One block a leaf. Thread t has the lanes [vector t, vector (t + 1)): one pack of every row of norm_lanes elements.
template <class G, int sources>
__global__ void __launch_bounds__(leaf_threads, resident_blocks(leaf_threads, leaf_blocks))
    leaf_kernel(GradLeafSumsArgs args, bool packs) {
  LOCKSTEP_SHARED(double, shared, [32][vector]);
  LOCKSTEP_SHARED(std::uint32_t, first_bad, [2]);
  const unsigned t = threadIdx.x, warp = t / 32;
  const NormLeaf leaf = args.leaves[blockIdx.x];
  const std::uint64_t begin = begin_in(leaf, args.grad.extent);
  const std::uint32_t rows = packs && begin % vector == 0 ? leaf.count / norm_lanes : 0;
  double lane[vector] = {};
#pragma unroll 4
  for (std::uint32_t row = 0; row < rows; ++row) {
    const auto g = gradient_pack<vector, sources, G>(args.grad, begin + row * norm_lanes + t * vector);
    for (int j = 0; j < vector; ++j) {
      const auto value = static_cast<double>(g.v[j]);
      lane[j] = lane[j] + value * value;
    }
  }
  for (std::uint32_t row = rows * norm_lanes; row < leaf.count; row += norm_lanes)
    for (std::uint32_t j = 0; j < vector && row + t * vector + j < leaf.count; ++j) {
      const auto value =
          static_cast<double>(gradient_pack<1, sources, G>(args.grad, begin + row + t * vector + j).v[0]);
      lane[j] = lane[j] + value * value;
    }

  // Lane k takes lane k + half for half = 128: the second warp's; 64, ..., 4: another thread's; 2, 1: its own.
  if (warp == 1)
    for (int j = 0; j < vector; ++j) shared[t % 32][j] = lane[j];
  __syncthreads();
  if (warp == 0) {
    for (int j = 0; j < vector; ++j) lane[j] = lane[j] + shared[t][j];
    for (int half = 16; half > 0; half /= 2)
      for (int j = 0; j < vector; ++j) lane[j] = lane[j] + __shfl_down_sync(every_lane, lane[j], half);
    lane[0] = lane[0] + lane[2];
    lane[1] = lane[1] + lane[3];
    lane[0] = lane[0] + lane[1];
  }
  __syncthreads();  // `shared` was read
  if (t == 0) shared[0][0] = lane[0];
  __syncthreads();
  const double sum = shared[0][0];
  if (t == 0) {
    args.sums[leaf.index] = sum;
    args.bad[blockIdx.x] = -1;
  }
  // The square of any finite float is finite in double, and so is the sum of a leaf of them: only a bad element makes
  // the sum bad, and only then is the leaf read again.
  if (sum - sum == 0) return;
  std::uint32_t bad = leaf.count;
  for (std::uint32_t k = t; k < leaf.count && bad == leaf.count; k += leaf_threads) {
    const float g = gradient_pack<1, sources, G>(args.grad, begin + k).v[0];
    if (!(g - g == 0)) bad = k;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const std::uint32_t other = __shfl_xor_sync(every_lane, bad, offset);
    bad = other < bad ? other : bad;
  }
  if (t % 32 == 0) first_bad[warp] = bad;
  __syncthreads();
  if (t == 0)
    args.bad[blockIdx.x] = static_cast<std::int64_t>(leaf.begin) +
                           static_cast<std::int64_t>(first_bad[0] < first_bad[1] ? first_bad[0] : first_bad[1]);
}

constexpr unsigned tree_threads = 1024;
constexpr int terms_each = 8;  ///< of a thread, read at once
constexpr std::uint32_t chunk = tree_threads * terms_each;
constexpr std::uint32_t most_chunks = max_norm_leaves / chunk;

/// T over the warp's values of the first `count` lanes, in lane 0. Two neighbours of 2^j terms are a subtree of
/// 2^(j+1); what has no neighbour goes up as it is.
__device__ __forceinline__ double warp_tree(double value, std::uint32_t count) {
  const std::uint32_t lane = threadIdx.x % 32;
  for (std::uint32_t step = 1; step < 32; step *= 2) {
    const double other = __shfl_down_sync(every_lane, value, static_cast<int>(step));
    if (lane + step < count) value = value + other;  // the others are nobody's neighbour
  }
  return value;
}
/// Of `of` things, those from `begin`, at most `most`.
__device__ __forceinline__ std::uint32_t some_of(std::uint32_t of, std::uint32_t begin, std::uint32_t most) {
  const std::uint32_t left = begin < of ? of - begin : 0;
  return left < most ? left : most;
}

/// T over values[0, count) for count <= chunk, in every thread of a block of whole warps. `shared` holds 33.
__device__ __forceinline__ double block_tree(const double* values, std::uint32_t count, double* shared) {
  const std::uint32_t t = threadIdx.x, own = some_of(count, t * terms_each, terms_each);
  double value = 0;
  if (own > 0)
    value = sum_of_sources<0, terms_each>(
        static_cast<int>(own), [&](int k) { return values[t * terms_each + static_cast<std::uint32_t>(k)]; });
  const std::uint32_t used = (count + terms_each - 1) / terms_each;  // threads that have terms
  value = warp_tree(value, some_of(used, t / 32 * 32, 32));
  __syncthreads();  // what was here before has been read
  if (t % 32 == 0) shared[t / 32] = value;
  __syncthreads();
  if (t < 32) {
    value = warp_tree(t < blockDim.x / 32 ? shared[t] : 0.0, (used + 31) / 32);
    if (t == 0) shared[32] = value;
  }
  __syncthreads();
  return shared[32];
}

/// One block, a chunk at a time: an aligned 2^13 terms are a subtree; then the tree over the chunks.
__global__ void __launch_bounds__(tree_threads) tree_kernel(GradNormArgs args) {
  LOCKSTEP_SHARED(double, shared, [33]);
  LOCKSTEP_SHARED(std::int64_t, bad, [32]);
  LOCKSTEP_SHARED(double, chunks, [most_chunks]);
  const std::uint32_t t = threadIdx.x;
  std::int64_t own_bad = -1;
  for (std::uint32_t j = t; j < args.bad_count; j += blockDim.x) own_bad = first_of(own_bad, args.bad[j]);
  for (int offset = 16; offset > 0; offset /= 2)
    own_bad = first_of(own_bad, __shfl_xor_sync(every_lane, own_bad, offset));
  if (t % 32 == 0) bad[t / 32] = own_bad;

  std::uint32_t count = 0;
  for (std::uint32_t begin = 0; begin < args.sum_count; begin += chunk) {
    const double sum = block_tree(args.sums + begin, some_of(args.sum_count, begin, chunk), shared);
    if (t == 0) chunks[count] = sum;
    ++count;
  }
  __syncthreads();
  const double sum = count == 1 ? chunks[0] : block_tree(chunks, count, shared);
  if (t != 0) return;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) own_bad = first_of(own_bad, bad[warp]);
  fill_report(args, sum, own_bad);
}

}  // namespace

void grad_leaf_sums(const Exec& exec, const GradLeafSumsArgs& args) {
  with_sources(args.grad, [&]<class G, int n>(G*, Sources<n>) {
    launch(exec, leaf_kernel<G, n>, dim3(args.leaf_count), dim3(leaf_threads), 0, args, is_aligned(args.grad));
  });
}

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  const std::uint32_t terms = args.sum_count < chunk ? args.sum_count : chunk;
  const std::uint32_t threads = (terms + terms_each - 1) / terms_each;
  launch(exec, tree_kernel, dim3(1), dim3(threads < 32 ? 32 : (threads + 31) / 32 * 32), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
