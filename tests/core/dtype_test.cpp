#include "core/dtype.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace lockstep {
namespace {

/// What a 16-bit floating-point pattern means, from its fields alone.
double value_of(std::uint16_t bits, int exponent_bits, int fraction_bits) {
  const int exponent_mask = (1 << exponent_bits) - 1, bias = exponent_mask / 2;
  const int exponent = (bits >> fraction_bits) & exponent_mask, fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == exponent_mask)
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

template <class T>
struct Format;
template <>
struct Format<bf16> {
  static constexpr int exponent = 8, fraction = 7;
};
template <>
struct Format<f16> {
  static constexpr int exponent = 5, fraction = 10;
};

template <class T>
T from_pattern(std::uint32_t bits) {
  T value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

template <class T>
class SixteenBits : public ::testing::Test {};
using Types = ::testing::Types<bf16, f16>;
TYPED_TEST_SUITE(SixteenBits, Types);

TYPED_TEST(SixteenBits, EveryPatternWidensExactlyAndComesBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto x = from_pattern<TypeParam>(bits);
    const auto wide = static_cast<float>(x);
    const double expected = value_of(x.bits, Format<TypeParam>::exponent, Format<TypeParam>::fraction);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(wide));
      EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(wide))));
    } else {
      ASSERT_EQ(static_cast<double>(wide), expected) << bits;
      ASSERT_EQ(TypeParam(wide).bits, x.bits);
    }
  }
}

TYPED_TEST(SixteenBits, RoundsToNearestEvenBetweenNeighbours) {
  // All finite positive neighbours a < b: their middle goes to the even one, anything else to the nearer one.
  const std::uint32_t last = TypeParam(std::numeric_limits<float>::infinity()).bits - 1U;
  for (std::uint32_t bits = 0; bits < last; ++bits) {
    const double a = static_cast<double>(static_cast<float>(from_pattern<TypeParam>(bits)));
    const double b = static_cast<double>(static_cast<float>(from_pattern<TypeParam>(bits + 1)));
    const double middle = (a + b) / 2;
    if (static_cast<double>(static_cast<float>(middle)) != middle) continue;  // below float's own spacing
    const auto exact = static_cast<float>(middle);
    const float below = std::nextafter(exact, 0.0F), above = std::nextafter(exact, std::numeric_limits<float>::max());
    ASSERT_EQ(TypeParam(exact).bits, bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(TypeParam(below).bits, bits);
    ASSERT_EQ(TypeParam(above).bits, bits + 1);
    ASSERT_EQ(TypeParam(-above).bits, (bits + 1) | 0x8000U);
  }
}

TYPED_TEST(SixteenBits, OverflowBecomesInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto largest = static_cast<float>(from_pattern<TypeParam>(TypeParam(inf).bits - 1U));
  const float spacing = largest - static_cast<float>(from_pattern<TypeParam>(TypeParam(inf).bits - 2U));
  EXPECT_EQ(static_cast<float>(TypeParam(std::nextafter(largest + spacing / 2, 0.0F))), largest);
  EXPECT_EQ(static_cast<float>(TypeParam(largest + spacing / 2)), inf);
  EXPECT_EQ(static_cast<float>(TypeParam(-inf)), -inf);
  EXPECT_EQ(TypeParam(-0.0F).bits, 0x8000);
}

TEST(DType, EachOneHasItsSizeAndItsName) {
  EXPECT_EQ(size_of(DType::f32), sizeof(float));
  EXPECT_EQ(size_of(DType::bf16), sizeof(bf16));
  EXPECT_EQ(size_of(DType::f16), sizeof(f16));
  EXPECT_EQ(size_of(DType::f64), sizeof(double));
  EXPECT_EQ(size_of(DType::i32), 4U);
  EXPECT_EQ(size_of(DType::i64), 8U);
  EXPECT_EQ(size_of(DType::u8), 1U);
  EXPECT_EQ(to_string(DType::bf16), "bf16");
  EXPECT_EQ(to_string(DType::f16), "fp16");
  EXPECT_EQ(dtype_of<bf16>, DType::bf16);
  EXPECT_EQ(dtype_of<std::int64_t>, DType::i64);
}

}  // namespace
}  // namespace lockstep
