#include "kernels/attention/attention.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/error.hpp"
#include "kernels/declare.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::testing {
namespace {

struct Shape {
  std::int64_t batch, length, heads, head_size;
  [[nodiscard]] std::int64_t width() const { return heads * head_size; }
  [[nodiscard]] std::size_t plain() const { return static_cast<std::size_t>(batch * length * width()); }
  [[nodiscard]] std::size_t packed() const { return 3 * plain(); }
  [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(batch * heads * length); }
  /// Index of element d of token t: part 0 query, 1 key, 2 value.
  [[nodiscard]] std::size_t at(std::int64_t b, std::int64_t t, std::int64_t part, std::int64_t h,
                               std::int64_t d) const {
    return static_cast<std::size_t>((((b * length + t) * 3 + part) * heads + h) * head_size + d);
  }
  [[nodiscard]] std::size_t at(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d) const {
    return static_cast<std::size_t>(((b * length + t) * heads + h) * head_size + d);
  }
};

/// The definition in double, from softmax's formula and its textbook derivative; knows nothing of tiles or of a stored
/// denominator.
struct Expected {
  std::vector<double> y, lse, dqkv;

  Expected(const Shape& s, const std::vector<double>& qkv, const std::vector<double>& dy)
      : y(s.plain()), lse(s.rows()), dqkv(s.packed()) {
    const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_size));
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t h = 0; h < s.heads; ++h)
        for (std::int64_t i = 0; i < s.length; ++i) {
          std::vector<double> p(static_cast<std::size_t>(i + 1)), dp(p.size());
          for (std::int64_t j = 0; j <= i; ++j)
            for (std::int64_t d = 0; d < s.head_size; ++d) {
              p[static_cast<std::size_t>(j)] += scale * qkv[s.at(b, i, 0, h, d)] * qkv[s.at(b, j, 1, h, d)];
              dp[static_cast<std::size_t>(j)] += dy[s.at(b, i, h, d)] * qkv[s.at(b, j, 2, h, d)];
            }
          const double top = *std::max_element(p.begin(), p.end());
          double sum = 0.0, mean = 0.0;
          for (double& x : p) sum += (x = std::exp(x - top));
          lse[static_cast<std::size_t>((b * s.heads + h) * s.length + i)] = top + std::log(sum);
          for (std::size_t j = 0; j < p.size(); ++j) mean += (p[j] /= sum) * dp[j];
          for (std::int64_t j = 0; j <= i; ++j) {
            const double weight = p[static_cast<std::size_t>(j)];
            const double ds = weight * (dp[static_cast<std::size_t>(j)] - mean) * scale;
            for (std::int64_t d = 0; d < s.head_size; ++d) {
              y[s.at(b, i, h, d)] += weight * qkv[s.at(b, j, 2, h, d)];
              dqkv[s.at(b, i, 0, h, d)] += ds * qkv[s.at(b, j, 1, h, d)];
              dqkv[s.at(b, j, 1, h, d)] += ds * qkv[s.at(b, i, 0, h, d)];
              dqkv[s.at(b, j, 2, h, d)] += weight * dy[s.at(b, i, h, d)];
            }
          }
        }
  }
};

double largest(const std::vector<double>& values) {
  double top = 0.0;
  for (const double x : values) top = std::max(top, std::fabs(x));
  return top;
}

template <class T>
std::vector<T> random_values(std::size_t count, unsigned seed, float factor = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& value : values) value = T(factor * normal(random));
  for (std::size_t i = 0; i < count; i += 11) values[i] = T(0.0F);
  return values;
}

template <class T>
std::vector<double> reals(const std::vector<T>& values) {
  std::vector<double> result;
  for (const T x : values) result.push_back(static_cast<double>(static_cast<float>(x)));
  return result;
}

/// What the two kernels wrote.
template <class T>
struct Result {
  std::vector<T> y, dqkv;
  std::vector<float> lse;
};

template <class T>
Result<T> run(const Session& session, const Shape& s, const std::vector<T>& qkv, const std::vector<T>& dy) {
  const Array<T> device_qkv(session, qkv), device_dy(session, dy);
  const Array<T> y(session, std::vector<T>(s.plain(), T(7.0F))), dqkv(session, std::vector<T>(s.packed(), T(7.0F)));
  const Array<float> lse(session, s.rows());
  kernels::attention_forward(session.exec(), {.qkv = device_qkv.data(),
                                              .y = y.data(),
                                              .lse = lse.data(),
                                              .batch = s.batch,
                                              .length = s.length,
                                              .heads = s.heads,
                                              .head_size = s.head_size,
                                              .dtype = dtype_of<T>});
  run_with_scratch(session, kernels::attention_backward,
                   AttentionBackwardArgs{.dy = device_dy.data(),
                                         .qkv = device_qkv.data(),
                                         .y = y.data(),
                                         .lse = lse.data(),
                                         .dqkv = dqkv.data(),
                                         .batch = s.batch,
                                         .length = s.length,
                                         .heads = s.heads,
                                         .head_size = s.head_size,
                                         .dtype = dtype_of<T>});
  return {y.host(), dqkv.host(), lse.host()};
}

/// Allowed error as a share of the largest expected value: fp32 sums of a few hundred terms; for 16-bit types the
/// rounding of y (which enters the backward pass) and of the results, and for bf16 also that of weights and score
/// gradients before they are multiplied.
template <class T>
constexpr double share = 0.0;
template <>
constexpr double share<float> = 4e-6;
template <>
constexpr double share<bf16> = 0x1p-6;
template <>
constexpr double share<f16> = 0x1p-9;

class Attention : public KernelTest {
 protected:
  template <class T>
  void expect_right(const Shape& s, float factor = 1.0F) const {
    SCOPED_TRACE(fmt::format("batch {} length {} heads {} head size {} {}, scores x {}", s.batch, s.length, s.heads,
                             s.head_size, to_string(dtype_of<T>), factor));
    const auto qkv = random_values<T>(s.packed(), 1, factor), dy = random_values<T>(s.plain(), 2);
    const Expected expected(s, reals(qkv), reals(dy));
    const auto got = run(session(), s, qkv, dy);
    // A share of the largest value, by the bits of T (above); lse is a float sum of float exponentials, 2^-18.
    const double y_bound = share<T> * largest(expected.y);
    const double lse_bound = 4e-6 * std::max(1.0, largest(expected.lse));
    const double gradient_bound = share<T> * largest(expected.dqkv);
    for (std::size_t i = 0; i < s.plain(); ++i)
      ASSERT_NEAR(static_cast<double>(static_cast<float>(got.y[i])), expected.y[i], y_bound) << "y " << i;
    for (std::size_t i = 0; i < s.rows(); ++i)
      ASSERT_NEAR(static_cast<double>(got.lse[i]), expected.lse[i], lse_bound) << "lse " << i;
    for (std::size_t i = 0; i < s.packed(); ++i)
      ASSERT_NEAR(static_cast<double>(static_cast<float>(got.dqkv[i])), expected.dqkv[i], gradient_bound)
          << "dqkv " << i;
  }
};

TEST_P(Attention, EqualsTheDefinitionInDouble) {
  const Shape shapes[] = {{1, 1, 1, 16},   {2, 2, 1, 64},  {1, 31, 2, 16}, {2, 32, 2, 32}, {1, 33, 3, 64},
                          {1, 48, 1, 128}, {1, 50, 2, 37}, {2, 65, 1, 17}, {1, 97, 2, 64}, {1, 130, 1, 24}};
  for (const Shape& shape : shapes) {
    expect_right<float>(shape);
    expect_right<bf16>(shape);
    expect_right<f16>(shape);
  }
  expect_right<float>({1, 257, 1, 48});
  expect_right<bf16>({1, 257, 1, 48});
}

TEST_P(Attention, SurvivesScoresFarBeyondTheRangeOfExp) {
  // Scores of several thousand: weights become 0 and 1. The gradient of the scores vanishes; y must be a value row.
  const Shape s{1, 40, 2, 64};
  const auto qkv = random_values<float>(s.packed(), 1, 100.0F), dy = random_values<float>(s.plain(), 2);
  const Expected expected(s, reals(qkv), reals(dy));
  const auto got = run(session(), s, qkv, dy);
  const double bound = 2e-3 * largest(expected.y);
  for (std::size_t i = 0; i < s.plain(); ++i) ASSERT_NEAR(static_cast<double>(got.y[i]), expected.y[i], bound) << i;
  for (const float x : got.dqkv) ASSERT_TRUE(std::isfinite(x));
}

template <class T>
void expect_causal(const Session& session) {
  const Shape s{1, 70, 2, 32};
  for (const std::int64_t from : {1, 32, 47, 69}) {
    auto qkv = random_values<T>(s.packed(), 1);
    const auto dy = random_values<T>(s.plain(), 2);
    const auto before = run(session, s, qkv, dy);
    for (std::size_t i = s.at(0, from, 0, 0, 0); i < qkv.size(); ++i) qkv[i] = T(3.0F - static_cast<float>(qkv[i]));
    const auto after = run(session, s, qkv, dy);
    const auto cut = static_cast<std::ptrdiff_t>(s.at(0, from, 0, 0));
    EXPECT_TRUE(std::equal(before.y.begin(), before.y.begin() + cut, after.y.begin())) << "changed from " << from;
    EXPECT_NE(before.y, after.y);
  }
}

TEST_P(Attention, NoTokenSeesALaterOne) {
  expect_causal<float>(session());
  expect_causal<bf16>(session());
}

TEST_P(Attention, BitsDoNotDependOnThreads) {
  const Shape s{2, 100, 3, 40};
  const auto qkv = random_values<bf16>(s.packed(), 1), dy = random_values<bf16>(s.plain(), 2);
  session().set_threads(1);
  const auto one = run(session(), s, qkv, dy);
  for (const int threads : {2, 3, 16}) {
    session().set_threads(threads);
    const auto many = run(session(), s, qkv, dy);
    EXPECT_EQ(one.y, many.y) << threads;
    EXPECT_EQ(one.lse, many.lse) << threads;
    EXPECT_EQ(one.dqkv, many.dqkv) << threads;
  }
}

template <class T>
void expect_overflow_is_seen(const Session& session, float planted) {
  const Shape s{1, 40, 1, 32};
  const auto qkv = random_values<T>(s.packed(), 1), dy = random_values<T>(s.plain(), 2);
  const auto finite = [](const std::vector<T>& values) {
    return std::all_of(values.begin(), values.end(), [](T x) { return std::isfinite(static_cast<float>(x)); });
  };
  auto bad_dy = dy;
  bad_dy[s.at(0, 20, 0, 5)] = T(planted);
  const auto backward = run(session, s, qkv, bad_dy);
  EXPECT_TRUE(finite(backward.y));
  EXPECT_FALSE(finite(backward.dqkv));
  auto bad_value = qkv;
  bad_value[s.at(0, 20, 2, 0, 5)] = T(planted);
  EXPECT_FALSE(finite(run(session, s, bad_value, dy).y));
  auto bad_query = qkv;
  bad_query[s.at(0, 20, 0, 0, 5)] = T(planted);
  EXPECT_FALSE(finite(run(session, s, bad_query, dy).y));
}

TEST_P(Attention, InfinityAndNanAreNotLost) {
  for (const float planted : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    expect_overflow_is_seen<float>(session(), planted);
    expect_overflow_is_seen<bf16>(session(), planted);
    expect_overflow_is_seen<f16>(session(), planted);
  }
}

TEST_P(Attention, NothingIsWrittenForAnEmptyBatch) {
  const Shape s{0, 5, 2, 16};
  EXPECT_TRUE(run<float>(session(), s, {}, {}).y.empty());
}

TEST_P(Attention, RefusesImpossibleArguments) {
  const Array<float> data(session(), std::size_t{96});
  AttentionBackwardArgs args = {.dy = data.data(),
                                .qkv = data.data(),
                                .y = data.data(),
                                .lse = data.data(),
                                .dqkv = data.data(),
                                .scratch = data.data(),
                                .batch = 1,
                                .length = 2,
                                .heads = 1,
                                .head_size = 16};
  EXPECT_THROW(kernels::attention_backward(exec(), args), Error);  // dqkv is qkv
  AttentionForwardArgs no_head = {
      .qkv = data.data(), .y = data.data(), .lse = data.data(), .batch = 1, .length = 2, .heads = 1};
  EXPECT_THROW(kernels::attention_forward(exec(), no_head), Error);
}

TEST_P(Attention, BitsDoNotDependOnTheOrderOfThreads) {
  const Shape shapes[] = {{2, 67, 2, 40}, {1, 35, 1, 100}};
  for (const Shape& s : shapes) {
    const auto qkv = random_values<f16>(s.packed(), 1), dy = random_values<f16>(s.plain(), 2);
    under_thread_orders(
        session(), [&] { return run(session(), s, qkv, dy); },
        [](const Result<f16>& later, const Result<f16>& first) {
          EXPECT_EQ(later.y, first.y);
          EXPECT_EQ(later.lse, first.lse);
          EXPECT_EQ(later.dqkv, first.dqkv);
        });
  }
}

TEST_P(Attention, WhatAMaskHidesIsNotRead) {
  // An infinite key and value late in the sequence: earlier tokens stay as they were.
  const Shape s{1, 45, 1, 24};
  auto qkv = random_values<float>(s.packed(), 1);
  const auto dy = random_values<float>(s.plain(), 2);
  const auto before = run(session(), s, qkv, dy);
  const std::int64_t late = 40;
  for (const std::int64_t part : {1, 2}) qkv[s.at(0, late, part, 0, 3)] = std::numeric_limits<float>::infinity();
  const auto after = run(session(), s, qkv, dy);
  const auto cut = static_cast<std::ptrdiff_t>(s.at(0, late, 0, 0));
  EXPECT_TRUE(std::equal(before.y.begin(), before.y.begin() + cut, after.y.begin()));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Attention, ::testing::ValuesIn(attention_backend_list()), backend_name);

TEST(FlashAttention, SaysWhichHeadsAndSizesItCannotTake) {
  const std::string wide = error_text(ErrorKind::config, [] { kernels::check_flash_attention(1, 1, 32, 129, 1); });
  EXPECT_NE(wide.find("at most 128 columns, and these have 129"), std::string::npos) << wide;
  const std::string many =
      error_text(ErrorKind::config, [] { kernels::check_flash_attention(1 << 20, 64, 4096, 64, 128); });
  EXPECT_NE(many.find("smaller micro-batch"), std::string::npos) << many;
  kernels::check_flash_attention(512, 16, 4096, 128, 128);
}

TEST(FlashAttention, KeepsOneFloatAQueryBetweenForwardAndBackward) {
  const AttentionBackwardArgs args = {.batch = 3, .length = 1000, .heads = 5, .head_size = 64};
  EXPECT_EQ(kernels::emu::flash_attention_backward_scratch(args), 3U * 1000U * 5U * sizeof(float));
}

TEST(AttentionReference, BackwardIsTheDerivativeOfForward) {
  // Central differences in double of sum(dy y): truncation h^2 and, from the fp32 lse, 1e-7 relative.
  const Shape s{1, 6, 2, 5};
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> qkv(s.packed()), dy(s.plain()), y(s.plain()), dqkv(s.packed());
  for (double& x : qkv) x = normal(random);
  for (double& x : dy) x = normal(random);
  std::vector<float> lse(s.rows());
  const AttentionForwardArgs forward = {.qkv = qkv.data(),
                                        .y = y.data(),
                                        .lse = lse.data(),
                                        .batch = s.batch,
                                        .length = s.length,
                                        .heads = s.heads,
                                        .head_size = s.head_size,
                                        .dtype = DType::f64};
  const auto objective = [&] {
    kernels::reference::attention_forward({}, forward);
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += dy[i] * y[i];
    return sum;
  };
  objective();
  kernels::reference::attention_backward({}, {.dy = dy.data(),
                                              .qkv = qkv.data(),
                                              .y = y.data(),
                                              .lse = lse.data(),
                                              .dqkv = dqkv.data(),
                                              .batch = s.batch,
                                              .length = s.length,
                                              .heads = s.heads,
                                              .head_size = s.head_size,
                                              .dtype = DType::f64});
  const double step = 1e-5;
  for (std::size_t i = 0; i < qkv.size(); ++i) {
    const double kept = qkv[i];
    qkv[i] = kept + step;
    const double above = objective();
    qkv[i] = kept - step;
    const double below = objective();
    qkv[i] = kept;
    // Central difference in double: h^2 f'''/6 is 1e-11, but the reference stores lse as float (2^-24 of about 2).
    EXPECT_NEAR(dqkv[i], (above - below) / (2.0 * step), 2e-6) << i;
  }
}

}  // namespace
}  // namespace lockstep::testing
