#pragma once

#include "nn/plan.hpp"

// Private to the operations' own sources: what they announce to the plan.
namespace lockstep::nn {

/// A pass over memory: `flops` and `touched` elements for each element of `shape`.
[[nodiscard]] inline Cost pass_cost(const Shape& shape, double flops, double touched, DType dtype) {
  const auto elements = static_cast<double>(shape.elements());
  return {flops * elements, touched * elements * static_cast<double>(size_of(dtype))};
}

/// A product [m, k] [k, n].
[[nodiscard]] inline Cost matmul_cost(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype) {
  const auto dm = static_cast<double>(m), dn = static_cast<double>(n), dk = static_cast<double>(k);
  return {2 * dm * dn * dk, static_cast<double>(size_of(dtype)) * (dm * dk + dk * dn + dm * dn)};
}

[[nodiscard]] inline Cost twice(const Cost& cost) { return {2 * cost.flops, 2 * cost.bytes}; }

}  // namespace lockstep::nn
