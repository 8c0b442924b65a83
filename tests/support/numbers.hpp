#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/dtype.hpp"
#include "core/rng.hpp"

namespace lockstep::testing {

[[nodiscard]] inline std::uint64_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
[[nodiscard]] inline std::uint64_t bits_of(double value) { return std::bit_cast<std::uint64_t>(value); }
[[nodiscard]] inline std::uint64_t bits_of(bf16 value) { return value.bits; }
[[nodiscard]] inline std::uint64_t bits_of(f16 value) { return value.bits; }

/// How many elements differ in their bits. Two NaNs are the same: their payload depends on the order of operands, which
/// compilers choose.
template <class T>
[[nodiscard]] std::size_t count_differing(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return a.size() + b.size();
  std::size_t differing = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(a[i]);
    const auto y = static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(b[i]);
    if (bits_of(a[i]) != bits_of(b[i]) && !(std::isnan(x) && std::isnan(y))) ++differing;
  }
  return differing;
}

/// The same for 16-bit words that are the bits of `dtype`, bf16 or f16.
[[nodiscard]] inline std::size_t count_differing(DType dtype, const std::vector<std::uint16_t>& a,
                                                 const std::vector<std::uint16_t>& b) {
  const auto count = [&]<class T>(T /*type*/) {
    const auto elements = [](const std::vector<std::uint16_t>& words) {
      std::vector<T> result(words.size());
      for (std::size_t i = 0; i < words.size(); ++i) result[i].bits = words[i];
      return result;
    };
    return count_differing(elements(a), elements(b));
  };
  return dtype == DType::bf16 ? count(bf16{}) : count(f16{});
}

/// T(lo, hi) of term(lo), ..., term(hi - 1), as core/sum_tree.hpp defines it: split at the largest power of two below
/// hi - lo.
template <class Term>
[[nodiscard]] auto tree_of(std::size_t lo, std::size_t hi, const Term& term) -> decltype(term(lo)) {
  if (hi - lo == 1) return term(lo);
  const std::size_t middle = lo + std::bit_floor(hi - lo - 1);
  return tree_of(lo, middle, term) + tree_of(middle, hi, term);
}

/// Normal numbers times `size`, rounded to T; a function of (lane, index) alone.
template <class T>
[[nodiscard]] std::vector<T> normal_values(std::size_t count, std::uint32_t lane, double size = 1.0) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = T(static_cast<float>(size * normal_at(7, RngStream::synthetic, lane, i)));
  return values;
}

}  // namespace lockstep::testing
