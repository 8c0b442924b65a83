#pragma once

// For hot CPU files: a short run of the gradient as float, in cache. Static for the reason in
// kernels/cpu/isa_namespace.hpp.

#include <cstddef>

#include "kernels/element.hpp"
#include "kernels/flat.hpp"

namespace lockstep::kernels {

inline constexpr std::size_t strip_elements = 512;

/// How far ahead the streaming loops fetch, in bytes: 2 KiB measured best for the seven streams of Adam (docs/cpu.md).
inline constexpr std::size_t prefetch_distance = 2048;

/// Fetches what a strip of `count` elements from `begin` will look like prefetch_distance later; may name memory past
/// the buffer's end, which is harmless.
template <class T>
static inline void prefetch_line(const T* element) {
  __builtin_prefetch(reinterpret_cast<const char*>(element) + prefetch_distance, 0, 3);
}

/// to[i] <- float(from[i])
template <class T>
static inline void widen_strip(const T* __restrict from, float* __restrict to, std::size_t count) {
#pragma omp simd
  for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

/// to[i] <- to[i] + float(from[i])
template <class T>
static inline void add_strip(const T* __restrict from, float* __restrict to, std::size_t count) {
#pragma omp simd
  for (std::size_t i = 0; i < count; ++i) to[i] = to[i] + static_cast<float>(from[i]);
}

/// to[i] <- T(first, last) over the sources (core/sum_tree.hpp), element by element.
template <class T>
static inline void sum_strip(const GradSources& grad, int first, int last, std::size_t begin, std::size_t count,
                             float* to) {
  const auto source = [&](int k) { return static_cast<const T*>(grad.source[k]) + begin; };
  if (last - first == 1) return widen_strip(source(first), to, count);
  int half = 1;
  while (2 * half < last - first) half *= 2;
  sum_strip<T>(grad, first, first + half, begin, count, to);
  if (last - first - half == 1) return add_strip(source(last - 1), to, count);
  alignas(64) float right[strip_elements];
  sum_strip<T>(grad, first + half, last, begin, count, right);
  add_strip(right, to, count);
}

/// `count` <= strip_elements elements of the sum from `begin`: the source itself where there is one of float, else
/// `buffer`, filled.
static inline const float* gradient_strip(const GradSources& grad, std::size_t begin, std::size_t count,
                                          float* buffer) {
  if (grad.dtype == DType::f32 && grad.count == 1) return static_cast<const float*>(grad.source[0]) + begin;
  with_element_type(grad.dtype, [&]<class T>(T*) { sum_strip<T>(grad, 0, grad.count, begin, count, buffer); });
  return buffer;
}

}  // namespace lockstep::kernels
