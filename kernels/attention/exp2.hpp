#pragma once

// For *_cpu.cpp files only: local to the including file and compiled for its instruction set.

#include <cstdint>

namespace lockstep::kernels {
namespace {

/// 2^x to 3 ulp, written so that loops over it vectorise: 2^n times the Taylor polynomial of 2^r, |r| <= 1/2, whose
/// remainder is below 5e-9. x is clamped to [-126, 127]; NaN gives NaN.
inline __attribute__((always_inline)) float fast_exp2(float x) {
  x = x < -126.0F ? -126.0F : x;
  x = x > 127.0F ? 127.0F : x;
  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits.
  const float shifted = x + 12582912.0F;
  const float r = x - (shifted - 12582912.0F);
  float p = 1.52527338e-5F;
  p = p * r + 1.54035304e-4F;
  p = p * r + 1.33335581e-3F;
  p = p * r + 9.61812911e-3F;
  p = p * r + 5.55041087e-2F;
  p = p * r + 2.40226507e-1F;
  p = p * r + 6.93147181e-1F;
  p = p * r + 1.0F;
  const std::uint32_t bits = (__builtin_bit_cast(std::uint32_t, shifted) << 23) + 0x3f800000U;
  return p * __builtin_bit_cast(float, bits);
}

}  // namespace
}  // namespace lockstep::kernels
