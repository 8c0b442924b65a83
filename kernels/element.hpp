#pragma once

// Elements of buffers whose type is known at run time: one name each for the test of a type, the dispatch over types,
// loads and stores. What hot CPU files and device code use is static, so that each compilation keeps its own copy
// (kernels/cpu/isa_namespace.hpp).

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"
#include "core/host_device.hpp"

namespace lockstep::kernels {

/// Whether kernels compute on this type: f32, bf16 or f16.
[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr bool is_compute_dtype(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

/// body(static_cast<T*>(nullptr)) with the element type T of a compute dtype.
template <class Body>
[[gnu::always_inline]] static inline void with_element_type(DType dtype, const Body& body) {
  if (dtype == DType::f32) return body(static_cast<float*>(nullptr));
  if (dtype == DType::bf16) return body(static_cast<bf16*>(nullptr));
  return body(static_cast<f16*>(nullptr));
}

/// Element i of a buffer of a compute dtype, as a float: exact.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float load_element(const void* data, DType dtype, std::size_t i) {
  if (dtype == DType::bf16) return static_cast<float>(static_cast<const bf16*>(data)[i]);
  if (dtype == DType::f16) return static_cast<float>(static_cast<const f16*>(data)[i]);
  return static_cast<const float*>(data)[i];
}

/// Element i <- value, rounded to the buffer's type.
LOCKSTEP_HOST_DEVICE static inline void store_element(void* data, DType dtype, std::size_t i, float value) {
  if (dtype == DType::bf16)
    static_cast<bf16*>(data)[i] = bf16(value);
  else if (dtype == DType::f16)
    static_cast<f16*>(data)[i] = f16(value);
  else
    static_cast<float*>(data)[i] = value;
}

/// Element i in double: how the reference implementations read what they accumulate.
[[nodiscard]] inline double element(const void* data, DType dtype, std::int64_t i) {
  return static_cast<double>(load_element(data, dtype, static_cast<std::size_t>(i)));
}

/// Element i <- value, rounded to float and then to the buffer's type: how they write.
inline void set_element(void* data, DType dtype, std::int64_t i, double value) {
  store_element(data, dtype, static_cast<std::size_t>(i), static_cast<float>(value));
}

/// out <- sum, or out + sum: how the reference implementations contribute to a gradient.
inline void contribute(float& out, double sum, bool accumulate) {
  out = static_cast<float>(accumulate ? static_cast<double>(out) + sum : sum);
}

}  // namespace lockstep::kernels
