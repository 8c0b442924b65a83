#pragma once

// Activation tensors of any dtype for kernel tests, written and read as doubles.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "core/rng.hpp"
#include "kernels/element.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::testing {

using Doubles = std::vector<double>;
inline constexpr DType activation_dtypes[] = {DType::f32, DType::bf16, DType::f16};

/// A tensor in a backend's memory. `offset` moves it off the 16-byte grid by that many elements, which takes kernels
/// to their paths without packs.
class Tensor {
 public:
  Tensor(const Session& session, DType dtype, const Doubles& values, std::size_t offset = 0)
      : dtype_(dtype), offset_(offset), array_(session, bytes_of(dtype, values, offset)) {}

  [[nodiscard]] void* data() const { return array_.data() + offset_ * size_of(dtype_); }
  [[nodiscard]] float* floats() const { return static_cast<float*>(data()); }
  [[nodiscard]] Doubles host() const {
    const std::vector<std::byte> bytes = array_.host();
    Doubles values(bytes.size() / size_of(dtype_) - offset_);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = kernels::element(bytes.data(), dtype_, static_cast<std::int64_t>(i + offset_));
    return values;
  }

 private:
  static std::vector<std::byte> bytes_of(DType dtype, const Doubles& values, std::size_t offset) {
    std::vector<std::byte> bytes((values.size() + offset) * size_of(dtype));
    for (std::size_t i = 0; i < values.size(); ++i)
      kernels::set_element(bytes.data(), dtype, static_cast<std::int64_t>(i + offset), values[i]);
    return bytes;
  }

  DType dtype_;
  std::size_t offset_;
  Array<std::byte> array_;
};

/// Uniform in (-range, range), the same on every run.
inline Doubles random_values(std::size_t count, std::uint64_t seed, double range = 1.0) {
  Doubles values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = range * (2.0 * uniform_from(random_at(seed, RngStream::synthetic, 0, i).word[0]) - 1.0);
  return values;
}
inline std::vector<std::int32_t> random_tokens(std::size_t count, std::uint64_t seed, std::int32_t vocabulary) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i)
    tokens[i] = static_cast<std::int32_t>(random_at(seed, RngStream::synthetic, 1, i).word[0] %
                                          static_cast<std::uint32_t>(vocabulary));
  return tokens;
}

/// The distance between neighbouring numbers of a dtype, relative to the number.
inline double spacing(DType dtype) { return dtype == DType::f32 ? 0x1p-23 : dtype == DType::bf16 ? 0x1p-7 : 0x1p-10; }

/// NaN equals NaN; infinities must be equal; otherwise |got - want| <= relative |want| + absolute. Two results that
/// agree in fp32 can still round to neighbouring 16-bit numbers, so 16-bit dtypes get one spacing on top.
inline void expect_close(const Doubles& got, const Doubles& want, DType dtype, double relative, double absolute,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  if (dtype != DType::f32) relative += spacing(dtype);
  if (dtype == DType::f16) absolute += 0x1p-24;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    if (got[i] == want[i]) continue;
    ASSERT_LE(std::abs(got[i] - want[i]), relative * std::abs(want[i]) + absolute)
        << what << ": element " << i << " is " << got[i] << ", the reference has " << want[i];
  }
}

/// Bit for bit, except that any NaN equals any NaN.
inline void expect_same(const Doubles& got, const Doubles& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])))
        << what << ": element " << i << " is " << got[i] << " and was " << want[i];
}

/// Several results of one run, by name.
struct Results {
  std::vector<std::pair<std::string, Doubles>> list;
  DType dtype = DType::f32;
};
inline void expect_same(const Results& got, const Results& want) {
  ASSERT_EQ(got.list.size(), want.list.size());
  for (std::size_t i = 0; i < got.list.size(); ++i)
    expect_same(got.list[i].second, want.list[i].second, got.list[i].first);
}

/// A session on the reference implementation.
inline Session& reference_session() {
  static Session session(backend_list().front());
  return session;
}

}  // namespace lockstep::testing
