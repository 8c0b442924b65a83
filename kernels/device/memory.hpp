#pragma once

// How device kernels touch memory: packs of elements by one access of up to 16 bytes, conversions by the hardware's
// instructions, streaming hints. Plain loads and core/dtype.hpp's conversions under the emulator. For .cu files only.
#include <bit>
#include <cstdint>
#include <initializer_list>

#include "kernels/device/simt.hpp"
#include "kernels/element.hpp"

#if !defined(LOCKSTEP_SIMT_EMU)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace lockstep {

/// N elements that are read or written by one access; the address must be a multiple of its size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16, "no access is wider on every device");
  T v[N];
};

}  // namespace lockstep

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

/// Elements of T in 16 bytes.
template <class T>
inline constexpr int pack_of = static_cast<int>(16 / sizeof(T));

/// Whether accesses of 16 bytes may start at all of these addresses (null: not used).
inline bool is_aligned(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) return false;
  return true;
}

// One access each; the `_once` pair is for what is touched once in a pass over more memory than any cache holds: first
// to be evicted, so that what the next kernel reads stays.
#if defined(LOCKSTEP_SIMT_EMU)
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <class T, int N>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_once(const T* from) {
  return load<N>(from);
}
template <class T, int N>
__device__ __forceinline__ void store_once(T* to, const Pack<T, N>& pack) {
  store(to, pack);
}
#else
// Stores by intrinsics that are one instruction each: a plain assignment the compiler may cut into elements. Of loads
// it is free to choose the moment.
template <int bytes>
struct Word;
template <>
struct Word<2> {
  using Type = unsigned short;
};
template <>
struct Word<4> {
  using Type = unsigned int;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};
template <class T, int N>
using WordOf = typename Word<sizeof(T) * N>::Type;
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return std::bit_cast<Pack<T, N>>(*reinterpret_cast<const WordOf<T, N>*>(from));
}
template <class T, int N>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& pack) {
  __stwb(reinterpret_cast<WordOf<T, N>*>(to), std::bit_cast<WordOf<T, N>>(pack));
}
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_once(const T* from) {
  return std::bit_cast<Pack<T, N>>(__ldcs(reinterpret_cast<const WordOf<T, N>*>(from)));
}
template <class T, int N>
__device__ __forceinline__ void store_once(T* to, const Pack<T, N>& pack) {
  __stcs(reinterpret_cast<WordOf<T, N>*>(to), std::bit_cast<WordOf<T, N>>(pack));
}
#endif

/// Elements in fp32, in registers.
template <int N>
struct Values {
  float v[N];
};
template <int N>
[[nodiscard]] __device__ __forceinline__ Values<N> operator+(Values<N> a, const Values<N>& b) {
  for (int k = 0; k < N; ++k) a.v[k] = a.v[k] + b.v[k];
  return a;
}

// Conversions: bit-exact with core/dtype.hpp except for which NaN a NaN becomes.
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(bf16 value) { return static_cast<float>(value); }
#if defined(LOCKSTEP_SIMT_EMU)
__device__ __forceinline__ float widen(f16 value) { return static_cast<float>(value); }
#else
__device__ __forceinline__ float widen(f16 value) { return __half2float(__ushort_as_half(value.bits)); }
#endif
template <class T, int N>
__device__ __forceinline__ Values<N> widen(const Pack<T, N>& pack) {
  Values<N> values;
  for (int k = 0; k < N; ++k) values.v[k] = widen(pack.v[k]);
  return values;
}

#if defined(LOCKSTEP_SIMT_EMU)
template <class T, int N>
__device__ __forceinline__ Pack<T, N> narrow(const Values<N>& values) {
  Pack<T, N> pack;
  for (int k = 0; k < N; ++k) pack.v[k] = T(values.v[k]);
  return pack;
}
#else
__device__ __forceinline__ void narrow_pair(float a, float b, bf16 (&to)[2]) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  to[0].bits = __bfloat16_as_ushort(pair.x);
  to[1].bits = __bfloat16_as_ushort(pair.y);
}
__device__ __forceinline__ void narrow_pair(float a, float b, f16 (&to)[2]) {
  const __half2 pair = __floats2half2_rn(a, b);
  to[0].bits = __half_as_ushort(pair.x);
  to[1].bits = __half_as_ushort(pair.y);
}
template <class T, int N>
__device__ __forceinline__ Pack<T, N> narrow(const Values<N>& values) {
  Pack<T, N> pack;
  if constexpr (sizeof(T) == sizeof(float)) {
    for (int k = 0; k < N; ++k) pack.v[k] = values.v[k];
  } else {  // one instruction rounds a pair
    T two[2];
    for (int k = 0; k < N; k += 2) {
      narrow_pair(values.v[k], values.v[k + 1 < N ? k + 1 : k], two);
      pack.v[k] = two[0];
      if (k + 1 < N) pack.v[k + 1] = two[1];
    }
  }
  return pack;
}
#endif
/// The compiler forgets what it knows of the pack: what was made of it is made again where it is used again.
template <class T, int N>
__device__ __forceinline__ void keep_as_is([[maybe_unused]] Pack<T, N>& pack) {
#if !defined(LOCKSTEP_SIMT_EMU)
  if constexpr (sizeof pack == 16) {
    auto words = std::bit_cast<uint4>(pack);
    asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
    pack = std::bit_cast<Pack<T, N>>(words);
  }
#endif
}
/// Rounded to T.
template <class T>
__device__ __forceinline__ T narrow(float value) {
  return narrow<T>(Values<1>{{value}}).v[0];
}

/// Elements [i, i + N) as they are in memory and in fp32. More than 16 bytes are several accesses.
template <int N, class T>
__device__ __forceinline__ Values<N> load_pack(const T* from) {
  constexpr int each = N < pack_of<T> ? N : pack_of<T>;
  Values<N> values;
  for (int part = 0; part < N; part += each) {
    const auto some = load<each>(from + part);
    for (int k = 0; k < each; ++k) values.v[part + k] = widen(some.v[k]);
  }
  return values;
}
/// Stores and returns the values as rounded.
template <int N, class T>
__device__ __forceinline__ Values<N> store_pack(T* to, const Values<N>& values) {
  constexpr int each = N < pack_of<T> ? N : pack_of<T>;
  Values<N> rounded;
  for (int part = 0; part < N; part += each) {
    Values<each> some;
    for (int k = 0; k < each; ++k) some.v[k] = values.v[part + k];
    const Pack<T, each> pack = narrow<T>(some);
    store(to + part, pack);
    for (int k = 0; k < each; ++k) rounded.v[part + k] = widen(pack.v[k]);
  }
  return rounded;
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
