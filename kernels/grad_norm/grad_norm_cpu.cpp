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

/// Which of the elements from `begin` is the first that is not finite, or -1.
std::int64_t find_bad(const GradSources& grad, std::size_t begin, std::size_t elements) {
  alignas(64) float buffer[strip_elements];
  for (std::size_t done = 0; done < elements; done += strip_elements) {
    const std::size_t count = elements - done < strip_elements ? elements - done : strip_elements;
    const float* g = gradient_strip(grad, begin + done, count, buffer);
    for (std::size_t k = 0; k < count; ++k)
      if (!is_finite(static_cast<double>(g[k]))) return static_cast<std::int64_t>(done + k);
  }
  return -1;
}

void sum_leaf(const GradLeafSumsArgs& args, std::int64_t j) {
  alignas(64) float buffer[strip_elements];
  alignas(64) double lane[norm_lanes] = {};
  const NormLeaf& leaf = args.leaves[j];
  const std::size_t begin = begin_in(leaf, args.grad.extent);
  for (std::size_t done = 0; done < leaf.count; done += strip_elements) {
    const std::size_t count = leaf.count - done < strip_elements ? leaf.count - done : strip_elements;
    add_squares(gradient_strip(args.grad, begin + done, count, buffer), count, lane);
  }
  for (std::uint32_t half = norm_lanes / 2; half > 0; half /= 2)
    for (std::uint32_t k = 0; k < half; ++k) lane[k] = lane[k] + lane[k + half];
  args.sums[leaf.index] = lane[0];
  // The square of any finite float is finite in double, and so is the sum of a leaf of them: only a bad element makes
  // the sum bad, and only then is the leaf read again.
  args.bad[j] = -1;
  if (is_finite(lane[0])) return;
  args.bad[j] = static_cast<std::int64_t>(leaf.begin) + find_bad(args.grad, begin, leaf.count);
}

}  // namespace

void grad_leaf_sums(const Exec& exec, const GradLeafSumsArgs& args) {
  for_pieces(exec.threads, static_cast<std::int64_t>(args.leaf_count), [&](std::int64_t j) { sum_leaf(args, j); });
}

// A term for 16,384 elements: too few to divide.
void grad_norm(const Exec& /*exec*/, const GradNormArgs& args) { fill_report(args); }

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
