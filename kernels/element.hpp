#pragma once

#include "core/dtype.hpp"
#include "core/error.hpp"

namespace lockstep::kernels {

/// Element i of a floating buffer of `dtype`, exactly, in double: how the reference implementations read.
[[nodiscard]] inline double element(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::f32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case DType::bf16:
      return static_cast<double>(static_cast<float>(static_cast<const bf16*>(data)[i]));
    case DType::f16:
      return static_cast<double>(static_cast<float>(static_cast<const f16*>(data)[i]));
    default:
      fail(ErrorKind::internal, "element: {} is not a type that kernels compute on", to_string(dtype));
  }
}

/// Stores `value` rounded to `dtype` (16-bit types through fp32).
inline void set_element(void* data, DType dtype, std::int64_t i, double value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::bf16:
      static_cast<bf16*>(data)[i] = bf16(static_cast<float>(value));
      return;
    case DType::f16:
      static_cast<f16*>(data)[i] = f16(static_cast<float>(value));
      return;
    default:
      fail(ErrorKind::internal, "set_element: {} is not a type that kernels compute on", to_string(dtype));
  }
}

/// out <- sum, or out + sum: how the reference implementations contribute to a gradient.
inline void contribute(float& out, double sum, bool accumulate) {
  out = static_cast<float>(accumulate ? static_cast<double>(out) + sum : sum);
}

/// Whether activations may have this type.
[[nodiscard]] constexpr bool is_compute_dtype(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

}  // namespace lockstep::kernels
