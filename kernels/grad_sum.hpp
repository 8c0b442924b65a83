#pragma once

// The ordered sum of gradient sources, once for reference loops and device code. Static for the reason in
// kernels/cpu/isa_namespace.hpp.

#include <cstddef>

#include "kernels/element.hpp"
#include "kernels/flat.hpp"

namespace lockstep::kernels {

/// ((s0[i] + s1[i]) + s2[i]) + ..., in float.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float gradient_at(const GradSources& grad, std::size_t i) {
  float sum = load_element(grad.source[0], grad.dtype, i);
  for (std::int32_t k = 1; k < grad.count; ++k) sum += load_element(grad.source[k], grad.dtype, i);
  return sum;
}

/// Whether a kernel can read it.
[[nodiscard]] inline bool is_valid(const GradSources& grad) {
  if (grad.count < 1 || grad.count > max_grad_sources || !is_compute_dtype(grad.dtype)) return false;
  for (std::int32_t k = 0; k < grad.count; ++k)
    if (grad.source[k] == nullptr) return false;
  return true;
}

}  // namespace lockstep::kernels
