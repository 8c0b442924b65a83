#pragma once

// What row-wise device kernels share: 16-byte packs and reductions over a block. For .cu files only.
#include <cstdint>
#include <limits>

#include "kernels/device/memory.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr unsigned every_thread = 0xffffffffU;

/// How a kernel walks a row: N elements of type T at a time.
template <class T, int N>
struct Packed {
  using Element = T;
  static constexpr int count = N;
};

/// Whether rows of `cols` elements can be walked in 16-byte packs at all of these addresses (null: not used).
inline bool packable(DType dtype, std::int64_t cols, std::initializer_list<const void*> addresses) {
  return is_aligned(addresses) && cols % static_cast<std::int64_t>(16 / size_of(dtype)) == 0;
}

/// body(Packed<T, N>{}) with the element type of dtype; N is 1 where packs do not fit.
template <class Body>
void with_pack(DType dtype, bool packs, const Body& body) {
  with_element_type(dtype, [&]<class T>(T*) {
    return packs ? body(Packed<T, static_cast<int>(16 / sizeof(T))>{}) : body(Packed<T, 1>{});
  });
}

/// Threads of a block that walks `packs` packs together: whole warps, at most `limit`.
inline unsigned block_threads(std::int64_t packs, unsigned limit) {
  const std::int64_t warps = (packs + 31) / 32;
  return warps * 32 < static_cast<std::int64_t>(limit) ? static_cast<unsigned>(warps * 32) : limit;
}
inline unsigned blocks_for(std::int64_t count, std::int64_t per_block, std::int64_t limit = 65535) {
  const std::int64_t blocks = (count + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < limit ? blocks : limit);
}

struct Sum {
  template <class T>
  __device__ __forceinline__ static T join(T a, T b) {
    return a + b;
  }
};
struct Max {
  __device__ __forceinline__ static float join(float a, float b) { return fmaxf(a, b); }
};

template <class Join, class T>
__device__ __forceinline__ T warp_reduce(T value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value = Join::join(value, __shfl_xor_sync(every_thread, value, offset));
  return value;
}
/// The reduction over all threads of a one-dimensional block of whole warps, in every thread, by a fixed tree.
/// `shared` holds 32 elements.
template <class Join, class T>
__device__ __forceinline__ T block_reduce(T value, T identity, T* shared) {
  value = warp_reduce<Join>(value);
  if (blockDim.x == 32) return value;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // an earlier reduction may still be reading
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = lane < blockDim.x / 32 ? shared[lane] : identity;
  return warp_reduce<Join>(value);
}

/// For threads of a one-dimensional block of whole warps: how many threads before this one have `flag`, and how many
/// have it at all. `shared` holds 32 elements; the caller separates two uses with a barrier.
struct Rank {
  int before;
  int total;
};
__device__ __forceinline__ int count_bits(unsigned word) {
  word = word - ((word >> 1) & 0x55555555U);
  word = (word & 0x33333333U) + ((word >> 2) & 0x33333333U);
  return static_cast<int>((((word + (word >> 4)) & 0x0f0f0f0fU) * 0x01010101U) >> 24);
}
__device__ __forceinline__ Rank block_rank(bool flag, int* shared) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned flags = __ballot_sync(every_thread, flag ? 1 : 0);
  if (lane == 0) shared[warp] = count_bits(flags);
  __syncthreads();
  Rank rank{count_bits(flags & ((1U << lane) - 1U)), 0};
  for (unsigned w = 0; w < blockDim.x / 32; ++w) {
    if (w < warp) rank.before += shared[w];
    rank.total += shared[w];
  }
  return rank;
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
