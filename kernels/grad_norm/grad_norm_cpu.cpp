#include "kernels/cpu/grad_strip.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/declare.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

static_assert(strip_elements % norm_lanes == 0, "so that a strip's first element belongs to lane 0");

double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

bool is_finite(double value) { return value - value == 0; }

/// Adds a strip that starts at lane 0.
void add_squares(const float* __restrict g, std::size_t count, double* __restrict lane) {
  std::size_t i = 0;
  for (; i + norm_lanes <= count; i += norm_lanes) {
    for (std::size_t line = i; line < i + norm_lanes; line += 16) prefetch_line(g + line);
#pragma omp simd
    for (std::size_t k = 0; k < norm_lanes; ++k) lane[k] = lane[k] + square(g[i + k]);
  }
  for (std::size_t k = 0; i + k < count; ++k) lane[k] = lane[k] + square(g[i + k]);
}

/// The smallest index from `begin` whose element is not finite, or -1.
std::int64_t find_bad(const GradSources& grad, std::size_t begin, std::size_t end) {
  alignas(64) float buffer[strip_elements];
  for (std::size_t i = begin; i < end; i += strip_elements) {
    const std::size_t count = end - i < strip_elements ? end - i : strip_elements;
    const float* g = gradient_strip(grad, i, count, buffer);
    for (std::size_t k = 0; k < count; ++k)
      if (!is_finite(static_cast<double>(g[k]))) return static_cast<std::int64_t>(i + k);
  }
  return -1;
}

void reduce_chunk(const GradNormArgs& args, std::uint64_t chunk) {
  alignas(64) float buffer[strip_elements];
  alignas(64) double lane[norm_lanes] = {};
  const std::size_t begin = args.begin + chunk * norm_chunk;
  const std::size_t stop = args.begin + args.count;
  const std::size_t end = stop - begin < norm_chunk ? stop : begin + norm_chunk;
  for (std::size_t i = begin; i < end; i += strip_elements) {
    const std::size_t count = end - i < strip_elements ? end - i : strip_elements;
    add_squares(gradient_strip(args.grad, i, count, buffer), count, lane);
  }
  for (std::uint32_t half = norm_lanes / 2; half > 0; half /= 2)
    for (std::uint32_t k = 0; k < half; ++k) lane[k] = lane[k] + lane[k + half];
  args.chunk_sums[chunk] = lane[0];
  // The square of any finite float is finite in double, and so is the sum of a chunk of them: only a bad element makes
  // the sum bad, and only then is the chunk read again.
  args.chunk_bad[chunk] = is_finite(lane[0]) ? -1 : find_bad(args.grad, begin, end);
}

}  // namespace

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  const auto chunks = static_cast<std::int64_t>(norm_chunks(args.count));
  for_pieces(exec.threads, chunks, [&](std::int64_t c) { reduce_chunk(args, static_cast<std::uint64_t>(c)); });
  finish_report(args, static_cast<std::uint64_t>(chunks));
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
