#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/host_device.hpp"

namespace lockstep {

/// Element types that buffers, kernels and collectives know.
enum class DType : std::uint8_t { f32, bf16, f16, f64, i32, i64, u8 };

[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::f16:
      return 2;
    case DType::f64:
      return 8;
    case DType::i32:
      return 4;
    case DType::i64:
      return 8;
    case DType::u8:
      return 1;
  }
  return 0;
}

[[nodiscard]] std::string_view to_string(DType dtype) noexcept;

/// bfloat16 by its bits. Conversions round to nearest even and keep NaN a NaN; they are bit-exact with the
/// hardware's, so the same storage type serves host, emulator and device.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  LOCKSTEP_HOST_DEVICE constexpr explicit bf16(float value) : bits(round(value)) {}
  LOCKSTEP_HOST_DEVICE constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  constexpr bool operator==(const bf16&) const = default;

 private:
  LOCKSTEP_HOST_DEVICE static constexpr std::uint16_t round(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const bool nan = (u & 0x7fffffffU) > 0x7f800000U;
    const std::uint32_t rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
    return static_cast<std::uint16_t>(nan ? ((u >> 16) | 0x40U) : rounded);
  }
};

/// IEEE binary16 by its bits; the same promises as bf16. Branch-free so that loops over it vectorise.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  LOCKSTEP_HOST_DEVICE constexpr explicit f16(float value) : bits(round(value)) {}
  LOCKSTEP_HOST_DEVICE constexpr explicit operator float() const { return widen(bits); }
  constexpr bool operator==(const f16&) const = default;

 private:
  LOCKSTEP_HOST_DEVICE static constexpr std::uint16_t round(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000U;
    const std::uint32_t magnitude = u & 0x7fffffffU;
    // Normal range: rebias the exponent by 127 - 15 and round the 13 dropped bits to even.
    const std::uint32_t normal = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
    // Below 2^-14 adding 0.5 lets the float adder do the rounding to a multiple of 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000U;
    std::uint32_t result = magnitude < 0x38800000U ? subnormal : normal;
    result = magnitude >= 0x477ff000U ? 0x7c00U : result;
    result = magnitude > 0x7f800000U ? (0x7e00U | ((magnitude >> 13) & 0x1ffU)) : result;
    return static_cast<std::uint16_t>(sign | result);
  }
  LOCKSTEP_HOST_DEVICE static constexpr float widen(std::uint16_t h) {
    const std::uint32_t sign = (static_cast<std::uint32_t>(h) & 0x8000U) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(h) & 0x7fffU;
    const std::uint32_t normal = (magnitude << 13) + 0x38000000U;
    const std::uint32_t special = (magnitude << 13) | 0x7f800000U;
    // A subnormal is its integer times 2^-24: exact in float.
    const auto subnormal =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 5.9604644775390625e-8F);
    std::uint32_t result = magnitude < 0x400U ? subnormal : normal;
    result = magnitude >= 0x7c00U ? special : result;
    return std::bit_cast<float>(sign | result);
  }
};

/// The DType of a C++ element type.
template <class T>
struct dtype_of_t;
template <>
struct dtype_of_t<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of_t<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of_t<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct dtype_of_t<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of_t<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of_t<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct dtype_of_t<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <class T>
inline constexpr DType dtype_of = dtype_of_t<T>::value;

}  // namespace lockstep
