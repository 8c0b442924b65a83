#pragma once

// Vectors of fp32 in the width of the instruction set that the including file is compiled for, with loads and stores
// of every activation type, and exp and tanh for them. For *_cpu.cpp files only: everything here has internal linkage
// and is forced inline, so that no code of one instruction set can be picked by the linker for another.
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/threads.hpp"
#include "kernels/element.hpp"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LOCKSTEP_INLINE inline __attribute__((always_inline))

namespace lockstep::kernels {
namespace {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
// gcc 12 warns of an uninitialised variable inside the plain forms of some intrinsics (its bug 105593); the
// zero-masked forms with every lane on compile to the same instructions.
inline constexpr __mmask16 every_lane = 0xffff;
#elif defined(__AVX2__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * lanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * lanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * lanes)));

/// A count of lanes that the compiler knows: all of them.
struct AllLanes {};

LOCKSTEP_INLINE Floats splat(float value) { return Floats{} + value; }

/// a b + c, in one rounding where the instruction set has that.
LOCKSTEP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_fmadd_ps(a, b, c));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_fmadd_ps(a, b, c));
#else
  return a * b + c;
#endif
}

/// a > b ? a : b, so b where either is NaN.
LOCKSTEP_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(every_lane, a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
/// a < b ? a : b, so b where either is NaN.
LOCKSTEP_INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(every_lane, a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

/// Sum over the lanes: halves are added until one is left.
LOCKSTEP_INLINE float sum_lanes(Floats v) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
  const __m256 eight = _mm512_maskz_extractf32x8_ps(0xff, v, 0) + _mm512_maskz_extractf32x8_ps(0xff, v, 1);
#else
  const __m256 eight = v;
#endif
  const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return two[0] + two[1];
#else
  return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}
LOCKSTEP_INLINE float max_lanes(Floats v) {
  float part[lanes];
  __builtin_memcpy(part, &v, sizeof v);
  float largest = part[0];
  for (int i = 1; i < lanes; ++i) largest = part[i] > largest ? part[i] : largest;
  return largest;
}

// ---- conversions: bit for bit what bf16 and f16 do in core/dtype.hpp

LOCKSTEP_INLINE Words words_of(Floats v) { return reinterpret_cast<Words>(v); }
LOCKSTEP_INLINE Floats floats_of(Words v) { return reinterpret_cast<Floats>(v); }

LOCKSTEP_INLINE Words zero_extend(Halves v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(every_lane, reinterpret_cast<__m256i>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
  return __builtin_convertvector(v, Words);
#endif
}
LOCKSTEP_INLINE Halves low_halves(Words v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Halves>(_mm512_maskz_cvtepi32_epi16(every_lane, reinterpret_cast<__m512i>(v)));
#elif defined(__AVX2__)
  // The words are below 2^16, so the saturating pack takes them as they are; it works on each 128-bit half alone.
  const __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(v), reinterpret_cast<__m256i>(v));
  return reinterpret_cast<Halves>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#else
  return __builtin_convertvector(v, Halves);
#endif
}

LOCKSTEP_INLINE Floats widen(Halves v, const bf16*) { return floats_of(zero_extend(v) << 16); }
LOCKSTEP_INLINE Halves narrow(Floats v, const bf16*) {
  const Words u = words_of(v);
  const Words rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
  const Words quiet = (u >> 16) | 0x40U;
#if defined(__AVX512F__)
  return low_halves(reinterpret_cast<Words>(_mm512_mask_mov_epi32(
      reinterpret_cast<__m512i>(rounded), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), reinterpret_cast<__m512i>(quiet))));
#else
  return low_halves(v != v ? quiet : rounded);
#endif
}

LOCKSTEP_INLINE Floats widen(Halves v, const f16*) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(every_lane, reinterpret_cast<__m256i>(v));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(reinterpret_cast<__m128i>(v));
#else
  float out[lanes];
  for (int i = 0; i < lanes; ++i) {
    f16 one;
    one.bits = v[i];
    out[i] = static_cast<float>(one);
  }
  Floats result;
  __builtin_memcpy(&result, out, sizeof result);
  return result;
#endif
}
LOCKSTEP_INLINE Halves narrow(Floats v, const f16*) {
#if defined(__AVX512F__)
  return reinterpret_cast<Halves>(_mm512_maskz_cvtps_ph(every_lane, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  return reinterpret_cast<Halves>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  Halves result{};
  for (int i = 0; i < lanes; ++i) result[i] = f16(v[i]).bits;
  return result;
#endif
}

// ---- loads and stores: any alignment; `count` lanes from 1 to lanes - 1, or AllLanes. Lanes beyond count load as 0.

LOCKSTEP_INLINE Floats load(const float* from, AllLanes) {
  Floats v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class T>
LOCKSTEP_INLINE Floats load(const T* from, AllLanes) {
  Halves v;
  __builtin_memcpy(&v, from, sizeof v);
  return widen(v, from);
}
LOCKSTEP_INLINE void store(float* to, Floats v, AllLanes) { __builtin_memcpy(to, &v, sizeof v); }
template <class T>
LOCKSTEP_INLINE void store(T* to, Floats v, AllLanes) {
  const Halves h = narrow(v, to);
  __builtin_memcpy(static_cast<void*>(to), &h, sizeof h);
}

#if defined(__AVX512F__)
LOCKSTEP_INLINE __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1U << count) - 1U); }
LOCKSTEP_INLINE Floats load(const float* from, int count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
template <class T>
LOCKSTEP_INLINE Floats load(const T* from, int count) {
  return widen(reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(first_lanes(count), from)), from);
}
LOCKSTEP_INLINE void store(float* to, Floats v, int count) { _mm512_mask_storeu_ps(to, first_lanes(count), v); }
template <class T>
LOCKSTEP_INLINE void store(T* to, Floats v, int count) {
  _mm256_mask_storeu_epi16(to, first_lanes(count), reinterpret_cast<__m256i>(narrow(v, to)));
}
/// v where the lane is below count, otherwise elsewhere.
LOCKSTEP_INLINE Floats keep(Floats v, int count, float elsewhere) {
  return _mm512_mask_mov_ps(splat(elsewhere), first_lanes(count), v);
}
#else
template <class T>
LOCKSTEP_INLINE Floats load(const T* from, int count) {
  T part[lanes] = {};
  for (int i = 0; i < count; ++i) part[i] = from[i];
  return load(part, AllLanes{});
}
template <class T>
LOCKSTEP_INLINE void store(T* to, Floats v, int count) {
  T part[lanes];
  store(part, v, AllLanes{});
  for (int i = 0; i < count; ++i) to[i] = part[i];
}
LOCKSTEP_INLINE Floats keep(Floats v, int count, float elsewhere) {
  float part[lanes];
  __builtin_memcpy(part, &v, sizeof v);
  for (int i = 0; i < lanes; ++i) part[i] = i < count ? part[i] : elsewhere;
  __builtin_memcpy(&v, part, sizeof v);
  return v;
}
#endif
LOCKSTEP_INLINE Floats keep(Floats v, AllLanes, float) { return v; }

// ---- loops

/// body(i, count) for i = 0, lanes, 2 lanes, ...; count is AllLanes, or the rest in a last call.
template <class Body>
LOCKSTEP_INLINE void for_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, AllLanes{});
  if (i < n) body(i, static_cast<int>(n - i));
}

/// Sum over body(i, count), whose lanes beyond count must be 0. Four running sums hide the latency of the adder; they
/// are joined in a fixed order.
template <class Body>
LOCKSTEP_INLINE float sum_over(std::int64_t n, const Body& body) {
  Floats s0{}, s1{}, s2{}, s3{};
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 += body(i, AllLanes{});
    s1 += body(i + lanes, AllLanes{});
    s2 += body(i + 2 * lanes, AllLanes{});
    s3 += body(i + 3 * lanes, AllLanes{});
  }
  for (; i + lanes <= n; i += lanes) s0 += body(i, AllLanes{});
  if (i < n) s1 += body(i, static_cast<int>(n - i));
  return sum_lanes((s0 + s1) + (s2 + s3));
}

// ---- functions

/// e^x: error below 2 units in the last place, subnormal results included; 0 and infinity beyond, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose remainder is below 2^-27 there;
/// 2^n in two factors, because n reaches from -150 to 128.
LOCKSTEP_INLINE Floats exp(Floats x) {
  x = smaller(splat(89.0F), larger(splat(-104.0F), x));  // in this order of operands NaN stays
  const Floats shifted = multiply_add(x, splat(1.44269504F), splat(12582912.0F));  // 1.5 2^23: rounds to an integer
  const Floats n = shifted - 12582912.0F;
  Floats r = multiply_add(n, splat(-0.693359375F), x);  // exact: ln 2 to 10 bits times an integer below 2^8
  r = multiply_add(n, splat(2.12194440e-4F), r);
  Floats p = splat(1.98412698e-4F);
  p = multiply_add(p, r, splat(1.38888889e-3F));
  p = multiply_add(p, r, splat(8.33333333e-3F));
  p = multiply_add(p, r, splat(4.16666667e-2F));
  p = multiply_add(p, r, splat(1.66666667e-1F));
  p = multiply_add(p, r, splat(0.5F));
  p = multiply_add(p * r, r, r) + 1.0F;
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(every_lane, p, n);
#else
  const Ints whole = reinterpret_cast<Ints>(shifted) - 0x4b400000;
  const Ints half = whole >> 1;
  return p * reinterpret_cast<Floats>((half + 127) << 23) * reinterpret_cast<Floats>((whole - half + 127) << 23);
#endif
}

/// 2^x for x from -126 to 126: error below 2 units in the last place. For callers that fold log2(e) into a constant of
/// theirs and bound x themselves. NaN for NaN. The polynomial is exp2f's of Moshier's cephes library.
LOCKSTEP_INLINE Floats exp2_within(Floats x) {
#if defined(__AVX512F__)
  const Floats n = _mm512_maskz_roundscale_ps(every_lane, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Floats shifted = x + 12582912.0F;
  const Floats n = shifted - 12582912.0F;
#endif
  const Floats r = x - n;
  Floats p = splat(1.535336188319500e-4F);
  p = multiply_add(p, r, splat(1.339887440266574e-3F));
  p = multiply_add(p, r, splat(9.618437357674640e-3F));
  p = multiply_add(p, r, splat(5.550332471162809e-2F));
  p = multiply_add(p, r, splat(2.402264791363012e-1F));
  p = multiply_add(p, r, splat(6.931472028550421e-1F));
  p = multiply_add(p, r, splat(1.0F));
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(every_lane, p, n);
#else
  return p * reinterpret_cast<Floats>((reinterpret_cast<Ints>(shifted) - (0x4b400000 - 127)) << 23);
#endif
}

/// 2^x as above; -126 and 126 stand for what is beyond them.
LOCKSTEP_INLINE Floats exp2_bounded(Floats x) { return exp2_within(smaller(splat(126.0F), larger(splat(-126.0F), x))); }

/// 1 / x for normal x and 1 / x: error below 2 units in the last place. One Newton step instead of the slow division.
LOCKSTEP_INLINE Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
  const Floats y = _mm512_maskz_rcp14_ps(every_lane, x);
  return multiply_add(y, multiply_add(-x, y, splat(1.0F)), y);
#else
  return 1.0F / x;
#endif
}

/// 1 / (1 + 2^-x): the logistic function of x ln 2, error below 4 units in the last place; 2^-126 stands for what is
/// smaller.
LOCKSTEP_INLINE Floats sigmoid2(Floats x) { return reciprocal(1.0F + exp2_bounded(-x)); }

/// tanh x, to 4 units in the last place: an odd polynomial (Moshier's cephes library) near 0, where 1 - 2 / (e^2x + 1)
/// would cancel.
LOCKSTEP_INLINE Floats tanh(Floats x) {
  const Floats s = x * x;
  Floats p = splat(-5.70498872745e-3F);
  p = multiply_add(p, s, splat(2.06390887954e-2F));
  p = multiply_add(p, s, splat(-5.37397155531e-2F));
  p = multiply_add(p, s, splat(1.33314422036e-1F));
  p = multiply_add(p, s, splat(-3.33332819422e-1F));
  const Floats near = multiply_add(p * s, x, x);
  const Floats far = 1.0F - 2.0F / (exp(x + x) + 1.0F);
  return (x < 0.625F) & (x > -0.625F) ? near : far;
}

}  // namespace
}  // namespace lockstep::kernels
