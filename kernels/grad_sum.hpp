#pragma once

// The ordered sum of gradient sources, once for reference loops and device code. Static for the reason in
// kernels/cpu/isa_namespace.hpp.

#include <cstddef>

#include "kernels/flat.hpp"

namespace lockstep {

/// Element i of a buffer of float, bf16 or f16, as a float.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float load_as_float(const void* data, DType dtype, std::size_t i) {
  if (dtype == DType::bf16) return static_cast<float>(static_cast<const bf16*>(data)[i]);
  if (dtype == DType::f16) return static_cast<float>(static_cast<const f16*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

/// Element i <- value, rounded to the buffer's type.
LOCKSTEP_HOST_DEVICE static inline void store_from_float(void* data, DType dtype, std::size_t i, float value) {
  if (dtype == DType::bf16)
    static_cast<bf16*>(data)[i] = bf16(value);
  else if (dtype == DType::f16)
    static_cast<f16*>(data)[i] = f16(value);
  else
    static_cast<float*>(data)[i] = value;
}

/// ((s0[i] + s1[i]) + s2[i]) + ..., in float.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float gradient_at(const GradSources& grad, std::size_t i) {
  float sum = load_as_float(grad.source[0], grad.dtype, i);
  for (std::int32_t k = 1; k < grad.count; ++k) sum += load_as_float(grad.source[k], grad.dtype, i);
  return sum;
}

[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr bool is_float_type(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

/// Whether a kernel can read it.
[[nodiscard]] inline bool is_valid(const GradSources& grad) {
  if (grad.count < 1 || grad.count > max_grad_sources || !is_float_type(grad.dtype)) return false;
  for (std::int32_t k = 0; k < grad.count; ++k)
    if (grad.source[k] == nullptr) return false;
  return true;
}

}  // namespace lockstep
