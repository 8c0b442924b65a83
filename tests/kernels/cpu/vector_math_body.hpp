// The body of a vector_math test, compiled in the including file's instruction set; see vector_math_cases.hpp.
#include "kernels/cpu/vector_math.hpp"

namespace lockstep::testing {
namespace {

double distance_in_ulp(float got, double want) {
  const float nearest = static_cast<float>(want);
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest) & 0x7fffffffU;
  if (bits >= 0x7f800000U) return got == nearest ? 0.0 : 1e9;
  const double ulp = bits < 0x00800000U ? 0x1p-149 : std::ldexp(1.0, static_cast<int>(bits >> 23) - 150);
  return std::fabs(static_cast<double>(got) - want) / ulp;
}
void worst(double& so_far, double error) {
  if (!(error <= so_far)) so_far = error;
}

SweepResult sweep() {
  SweepResult result;
  for (std::uint64_t first = 0; first < (std::uint64_t{1} << 32); first += 4099 * kernels::lanes) {
    kernels::Floats x;
    for (int i = 0; i < kernels::lanes; ++i) {
      const auto at = static_cast<std::uint32_t>(first + 4099 * static_cast<std::uint64_t>(i));
      x[i] = std::bit_cast<float>(at);
    }
    const kernels::Floats e = kernels::exp(x), e2 = kernels::exp2_bounded(x), t = kernels::tanh(x);
    const kernels::Floats s = kernels::sigmoid2(x), r = kernels::reciprocal(x);
    for (int i = 0; i < kernels::lanes; ++i) {
      const float value = x[i];
      const auto d = static_cast<double>(value);
      if (value != value) {
        if (e[i] == e[i] || e2[i] == e2[i] || t[i] == t[i] || s[i] == s[i]) ++result.lost_nan;
        continue;
      }
      // Within a rounding of the largest float, infinity is as good.
      if (d < 88.72 || d > 88.73) worst(result.exp_ulp, distance_in_ulp(e[i], std::exp(d)));
      const double bounded = d < -126 ? -126 : d > 126 ? 126 : d;
      worst(result.exp2_ulp, distance_in_ulp(e2[i], std::exp2(bounded)));
      worst(result.tanh_ulp, distance_in_ulp(t[i], std::tanh(d)));
      if (d > -125) worst(result.sigmoid2_ulp, distance_in_ulp(s[i], 1.0 / (1.0 + std::exp2(-d))));
      const double magnitude = std::fabs(d);
      if (magnitude > 0x1p-125 && magnitude < 0x1p125) worst(result.reciprocal_ulp, distance_in_ulp(r[i], 1.0 / d));
    }
  }
  return result;
}

ConversionResult convert() {
  ConversionResult result;
  for (std::uint64_t first = 0; first < (std::uint64_t{1} << 32); first += 4099 * kernels::lanes) {
    float x[kernels::lanes], back[kernels::lanes], part[kernels::lanes];
    bf16 b[kernels::lanes];
    f16 h[kernels::lanes];
    for (int i = 0; i < kernels::lanes; ++i)
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(first + 4099 * static_cast<std::uint64_t>(i)));
    const kernels::Floats v = kernels::load(x, kernels::AllLanes{});
    kernels::store(b, v, kernels::AllLanes{});
    kernels::store(h, v, kernels::AllLanes{});
    for (int i = 0; i < kernels::lanes; ++i) {
      ++result.checked;
      if (b[i].bits != bf16(x[i]).bits) ++result.bf16_differs;
      // Signalling NaNs become quiet in either, and the payload is free.
      if (h[i].bits != f16(x[i]).bits && x[i] == x[i]) ++result.f16_differs;
    }
    kernels::store(back, kernels::load(b, kernels::AllLanes{}), kernels::AllLanes{});
    for (int i = 0; i < kernels::lanes; ++i)
      if (std::bit_cast<std::uint32_t>(back[i]) != std::bit_cast<std::uint32_t>(static_cast<float>(b[i])))
        ++result.bf16_differs;
    kernels::store(back, kernels::load(h, kernels::AllLanes{}), kernels::AllLanes{});
    for (int i = 0; i < kernels::lanes; ++i)
      if (back[i] != static_cast<float>(h[i]) && back[i] == back[i]) ++result.f16_differs;
    for (int count = 1; count < kernels::lanes; ++count) {
      for (float& value : part) value = 7.0F;
      kernels::store(part, kernels::keep(kernels::load(x, count), count, 3.0F), count);
      const kernels::Floats loaded = kernels::load(x, count);
      for (int i = 0; i < kernels::lanes; ++i) {
        const bool kept = i < count ? std::bit_cast<std::uint32_t>(part[i]) == std::bit_cast<std::uint32_t>(x[i])
                                    : part[i] == 7.0F && loaded[i] == 0.0F;
        if (!kept) ++result.tail_differs;
      }
    }
  }
  return result;
}

}  // namespace
}  // namespace lockstep::testing
