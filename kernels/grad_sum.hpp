#pragma once

// The sum of gradient sources, once for reference loops and device code. Static for the reason in
// kernels/cpu/isa_namespace.hpp.

#include <cstddef>

#include "kernels/element.hpp"
#include "kernels/flat.hpp"

namespace lockstep::kernels {

/// T(first, min(first + size, count)) of load(k) for the sources k: the full tree over `size` = 2^j sources without
/// those that are not there. `first` < count. In registers: nothing is indexed at run time.
template <int first, int size, class Load>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline auto sum_of_sources(int count, const Load& load) {
  if constexpr (size == 1) {
    return load(first);
  } else {
    auto sum = sum_of_sources<first, size / 2>(count, load);
    if (count > first + size / 2) sum = sum + sum_of_sources<first + size / 2, size / 2>(count, load);
    return sum;
  }
}

/// Element i of the sum, in float.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float gradient_at(const GradSources& grad, std::size_t i) {
  return sum_of_sources<0, max_grad_sources>(grad.count,
                                             [&](int k) { return load_element(grad.source[k], grad.dtype, i); });
}

/// Whether a kernel can read it.
[[nodiscard]] inline bool is_valid(const GradSources& grad) {
  if (grad.count < 1 || grad.count > max_grad_sources || !is_compute_dtype(grad.dtype)) return false;
  for (std::int32_t k = 0; k < grad.count; ++k)
    if (grad.source[k] == nullptr) return false;
  return true;
}

}  // namespace lockstep::kernels
