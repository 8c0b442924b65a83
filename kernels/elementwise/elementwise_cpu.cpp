#include "kernels/cpu/grad_strip.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

constexpr std::size_t chunk = 65536;  ///< elements a thread takes at once; a multiple of strip_elements

/// Calls body(begin, count) for the whole range in pieces of `chunk`.
template <class Body>
void for_chunks(const Exec& exec, std::size_t count, const Body& body) {
  for_pieces(exec.threads, static_cast<std::int64_t>((count + chunk - 1) / chunk), [&](std::int64_t c) {
    const std::size_t begin = static_cast<std::size_t>(c) * chunk;
    body(begin, count - begin < chunk ? count - begin : chunk);
  });
}

template <class From, class To>
void cast_chunk(const From* __restrict from, To* __restrict to, std::size_t count) {
#pragma omp simd
  for (std::size_t i = 0; i < count; ++i) to[i] = To(static_cast<float>(from[i]));
}

template <class X, class Y>
void axpy_chunk(float a, const X* __restrict x, Y* __restrict y, std::size_t count) {
#pragma omp simd
  for (std::size_t i = 0; i < count; ++i) y[i] = Y(static_cast<float>(y[i]) + a * static_cast<float>(x[i]));
}

template <class Y>
void scale_chunk(float a, Y* y, std::size_t count) {
#pragma omp simd
  for (std::size_t i = 0; i < count; ++i) y[i] = Y(a * static_cast<float>(y[i]));
}

/// Sums into a buffer first: `to` may be one of the sources.
template <class To>
void sum_chunk(const GradSources& sources, std::size_t begin, std::size_t count, To* to) {
  alignas(64) float buffer[strip_elements];
  for (std::size_t i = begin; i < begin + count; i += strip_elements) {
    const std::size_t n = begin + count - i < strip_elements ? begin + count - i : strip_elements;
    const float* sum = gradient_strip(sources, i, n, buffer);
#pragma omp simd
    for (std::size_t k = 0; k < n; ++k) to[i + k] = To(sum[k]);
  }
}

}  // namespace

void cast(const Exec& exec, const CastArgs& args) {
  with_element_type(args.from_dtype, [&]<class From>(From*) {
    with_element_type(args.to_dtype, [&]<class To>(To*) {
      for_chunks(exec, args.count, [&](std::size_t begin, std::size_t count) {
        cast_chunk(static_cast<const From*>(args.from) + begin, static_cast<To*>(args.to) + begin, count);
      });
    });
  });
}

void axpy(const Exec& exec, const AxpyArgs& args) {
  const auto a = static_cast<float>(args.a);
  with_element_type(args.x_dtype, [&]<class X>(X*) {
    with_element_type(args.y_dtype, [&]<class Y>(Y*) {
      for_chunks(exec, args.count, [&](std::size_t begin, std::size_t count) {
        axpy_chunk(a, static_cast<const X*>(args.x) + begin, static_cast<Y*>(args.y) + begin, count);
      });
    });
  });
}

void scale(const Exec& exec, const ScaleArgs& args) {
  const auto a = static_cast<float>(args.a);
  with_element_type(args.dtype, [&]<class Y>(Y*) {
    for_chunks(exec, args.count,
               [&](std::size_t begin, std::size_t count) { scale_chunk(a, static_cast<Y*>(args.y) + begin, count); });
  });
}

void ordered_sum(const Exec& exec, const OrderedSumArgs& args) {
  with_element_type(args.to_dtype, [&]<class To>(To*) {
    for_chunks(exec, args.count, [&](std::size_t begin, std::size_t count) {
      sum_chunk(args.sources, begin, count, static_cast<To*>(args.to));
    });
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
