#pragma once

// Sorts positions by small keys, stably: a radix sort with one pass for each digit of 8 bits, lowest first. Counts are
// integers, so nothing depends on the order of threads. For .cu files only.
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned digit_bits = 8;
constexpr unsigned digits = 1U << digit_bits;
constexpr unsigned sort_threads = digits;  ///< so that a thread is a digit too
constexpr unsigned scan_threads = 1024;
constexpr std::int64_t keys_per_block = 2048;

LOCKSTEP_HOST_DEVICE constexpr std::int64_t divided(std::int64_t count, std::int64_t by) {
  return (count + by - 1) / by;
}

/// Memory of the sort.
struct SortLists {
  std::int32_t* keys[2];       ///< [count]
  std::int32_t* positions[2];  ///< [count], of these keys
  std::int32_t* counts;        ///< [sort_counts(count)]
};
/// [digits][blocks]: of keys; then places.
constexpr std::int64_t sort_counts(std::int64_t count) { return digits * divided(count, keys_per_block); }

/// One pass of the sort.
struct SortPass {
  const std::int32_t* keys;
  const std::int32_t* positions;  ///< null: key i is of position i
  std::int32_t* to_keys;
  std::int32_t* to_positions;
  std::int32_t* counts;
  std::int32_t count;
  std::int32_t largest;
  unsigned shift;
};
__device__ __forceinline__ std::int32_t key_at(const SortPass& pass, std::int32_t i) {
  const std::int32_t key = pass.keys[i];
  return key < 0 || key > pass.largest ? pass.largest : key;
}
__device__ __forceinline__ unsigned digit_of(const SortPass& pass, std::int32_t key) {
  return (static_cast<unsigned>(key) >> pass.shift) % digits;
}
/// The keys of a block: [first, end).
struct KeyRange {
  std::int32_t first, end;
};
__device__ __forceinline__ KeyRange keys_of_block(const SortPass& pass) {
  const auto first = static_cast<std::int32_t>(blockIdx.x * keys_per_block);
  return {first, pass.count - first < keys_per_block ? pass.count : first + static_cast<std::int32_t>(keys_per_block)};
}

/// counts[digit][block] <- keys of the block with this digit. Integers: the order of additions does not matter.
__global__ void __launch_bounds__(sort_threads) count_kernel(SortPass pass) {
  LOCKSTEP_SHARED(std::int32_t, counts, [digits]);
  counts[threadIdx.x] = 0;
  __syncthreads();
  const KeyRange range = keys_of_block(pass);
  for (std::int32_t i = range.first + static_cast<std::int32_t>(threadIdx.x); i < range.end; i += sort_threads)
    atomicAdd(&counts[digit_of(pass, key_at(pass, i))], 1);
  __syncthreads();
  pass.counts[threadIdx.x * gridDim.x + blockIdx.x] = counts[threadIdx.x];
}

/// One block: counts <- the sums of all counts before each.
__global__ void __launch_bounds__(scan_threads) scan_kernel(std::int32_t* counts, std::int32_t count) {
  LOCKSTEP_SHARED(std::int32_t, warps, [32]);
  const auto t = static_cast<std::int32_t>(threadIdx.x), lane = t % 32, warp = t / 32;
  std::int32_t before = 0;  // of all turns so far
  for (std::int32_t base = 0; base < count; base += static_cast<std::int32_t>(scan_threads)) {
    const std::int32_t own = base + t < count ? counts[base + t] : 0;
    std::int32_t sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const std::int32_t other = __shfl_up_sync(every_thread, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    std::int32_t total = 0, below = 0;
    for (std::int32_t w = 0; w < static_cast<std::int32_t>(scan_threads / 32); ++w) {
      if (w == warp) below = total;
      total += warps[w];
    }
    if (base + t < count) counts[base + t] = before + below + sum - own;
    before += total;
    __syncthreads();  // `warps` was read
  }
}

/// Puts each key behind those of smaller digits and those of its digit that came before it.
__global__ void __launch_bounds__(sort_threads) scatter_kernel(SortPass pass) {
  constexpr unsigned warps = sort_threads / 32;
  LOCKSTEP_SHARED(std::int32_t, places, [warps][digits]);
  const unsigned t = threadIdx.x, lane = t % 32, warp = t / 32;
  const KeyRange range = keys_of_block(pass);
  std::int32_t place = pass.counts[t * gridDim.x + blockIdx.x];  // where the next key of digit t goes
  for (std::int32_t base = range.first; base < range.end; base += static_cast<std::int32_t>(sort_threads)) {
    for (unsigned w = 0; w < warps; ++w) places[w][t] = 0;
    __syncthreads();
    const std::int32_t i = base + static_cast<std::int32_t>(t);
    const bool here = i < range.end;
    const std::int32_t key = here ? key_at(pass, i) : 0;
    const unsigned digit = digit_of(pass, key);
    // Lanes of this warp with the same digit.
    unsigned peers = __ballot_sync(every_thread, here ? 1 : 0);
    for (unsigned bit = 0; bit < digit_bits; ++bit) {
      const unsigned set = __ballot_sync(every_thread, static_cast<int>((digit >> bit) & 1U));
      peers &= ((digit >> bit) & 1U) != 0 ? set : ~set;
    }
    const int before = count_bits(peers & ((1U << lane) - 1U));
    if (here && before == 0) places[warp][digit] = count_bits(peers);
    __syncthreads();
    for (unsigned w = 0; w < warps; ++w) {  // thread t for digit t: counts become places
      const std::int32_t keys = places[w][t];
      places[w][t] = place;
      place += keys;
    }
    __syncthreads();
    if (here) {
      const std::int32_t to = places[warp][digit] + before;
      pass.to_keys[to] = key;
      pass.to_positions[to] = pass.positions != nullptr ? pass.positions[i] : i;
    }
    __syncthreads();  // `places` was read
  }
}

/// Sorts the positions 0, ..., count - 1, of which there is at least one, by keys[position]; what is outside [0,
/// largest] counts as largest. Returns which of the two lists has them in the end.
inline int sort_by_key(const Exec& exec, const std::int32_t* keys, std::int64_t count, std::int64_t largest,
                       const SortLists& lists) {
  const auto blocks = static_cast<unsigned>(divided(count, keys_per_block));
  int to = 0;
  for (unsigned shift = 0; shift == 0 || (largest >> shift) > 0; shift += digit_bits) {
    const bool is_first = shift == 0;
    to = is_first ? 0 : 1 - to;
    const SortPass pass = {is_first ? keys : lists.keys[1 - to],
                           is_first ? nullptr : lists.positions[1 - to],
                           lists.keys[to],
                           lists.positions[to],
                           lists.counts,
                           static_cast<std::int32_t>(count),
                           static_cast<std::int32_t>(largest),
                           shift};
    launch(exec, count_kernel, dim3(blocks), dim3(sort_threads), 0, pass);
    launch(exec, scan_kernel, dim3(1), dim3(scan_threads), 0, lists.counts, static_cast<std::int32_t>(digits * blocks));
    launch(exec, scatter_kernel, dim3(blocks), dim3(sort_threads), 0, pass);
  }
  return to;
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
