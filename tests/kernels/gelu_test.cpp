#include "kernels/gelu/gelu.hpp"

#include <gtest/gtest.h>

#include <numbers>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::int64_t rows, cols;
  DType dtype;
  bool bias;
  bool in_place;
  std::size_t offset = 0;
};

/// Numbers that catch overflow, cancellation and lost specials, then random ones.
Doubles values_for(const Case& c, std::uint64_t seed) {
  Doubles values = random_values(static_cast<std::size_t>(c.rows * c.cols), seed, 6.0);
  const Doubles planted = {0.0,   -0.0,  1e-30, -1e-30, 1.0,      -1.0,      5.5,         -5.5, 10.0,
                           -10.0, 29.0,  -29.0, 31.0,   -31.0,    1e4,       -1e4,        1e20, -1e20,
                           3e38,  -3e38, 1e-40, -1e-40, HUGE_VAL, -HUGE_VAL, std::nan("")};
  for (std::size_t i = 0; i < planted.size() && 3 * i < values.size(); ++i) values[3 * i] = planted[i];
  return values;
}

Results forward(const Session& session, const Case& c) {
  const Doubles values = values_for(c, 1);
  const Tensor x(session, c.dtype, values, c.offset), y(session, c.dtype, Doubles(values.size()), c.offset);
  const Tensor bias(session, c.dtype, random_values(static_cast<std::size_t>(c.cols), 2), c.offset);
  const Tensor pre(session, c.dtype, Doubles(values.size()), c.offset);
  const Tensor& pre_out = c.in_place && c.bias ? x : pre;
  const Tensor& y_out = c.in_place && !c.bias ? x : y;
  kernels::gelu_forward(session.exec(), {.x = x.data(),
                                         .bias = c.bias ? bias.data() : nullptr,
                                         .pre = c.bias ? pre_out.data() : nullptr,
                                         .y = y_out.data(),
                                         .rows = c.rows,
                                         .cols = c.cols,
                                         .dtype = c.dtype});
  return {{{"y", y_out.host()}, {"pre", pre_out.host()}}, c.dtype};
}

Results backward(const Session& session, const Case& c, double dbias_before = 4.0, bool accumulate = true) {
  const Doubles values = values_for(c, 1);
  const Tensor pre(session, c.dtype, values, c.offset);
  const Tensor dy(session, c.dtype, random_values(values.size(), 3), c.offset);
  const Tensor dx(session, c.dtype, Doubles(values.size()), c.offset);
  const Tensor dbias(session, DType::f32, Doubles(static_cast<std::size_t>(c.cols), dbias_before));
  const Tensor& out = c.in_place ? dy : dx;
  run_with_scratch(session, kernels::gelu_backward,
                   GeluBackwardArgs{.dy = dy.data(),
                                    .pre = pre.data(),
                                    .dx = out.data(),
                                    .dbias = c.bias ? dbias.floats() : nullptr,
                                    .rows = c.rows,
                                    .cols = c.cols,
                                    .accumulate = accumulate ? 1 : 0,
                                    .dtype = c.dtype});
  return {{{"dx", out.host()}, {"dbias", dbias.host()}}, c.dtype};
}

template <class Body>
void for_each_case(const Session& session, const Body& body) {
  for (const DType dtype : activation_dtypes)
    for (const bool bias : {false, true}) {
      for (const std::int64_t cols : {1, 31, 32, 33, 257, 264}) {
        body(Case{3, cols, dtype, bias, false, 0});
        body(Case{5, cols, dtype, bias, true, 1});
      }
      body(Case{35, 40, dtype, bias, false, 0});
      if (!session.emulated()) body(Case{101, 993, dtype, bias, false, 0});
    }
}

class GeluTest : public KernelTest {};

// The argument of exp has an error of 2^-24 of itself, which is at most about 100 where the result still counts.
constexpr double relative = 2e-5, absolute = 2e-6;

TEST_P(GeluTest, ForwardEqualsTheReference) {
  for_each_case(session(), [&](const Case& c) {
    const Results got = forward(session(), c), want = forward(reference_session(), c);
    expect_close(got.list[0].second, want.list[0].second, c.dtype, relative, absolute, "y");
    if (c.bias) expect_same(got.list[1].second, want.list[1].second, "pre");
  });
}

TEST_P(GeluTest, BackwardEqualsTheReference) {
  for_each_case(session(), [&](const Case& c) {
    const Results got = backward(session(), c), want = backward(reference_session(), c);
    expect_close(got.list[0].second, want.list[0].second, c.dtype, relative, absolute, "dx");
    // A 16-bit dx may be rounded to the other neighbour before it is added.
    const double each = c.dtype == DType::f32 ? 1e-6 : spacing(c.dtype);
    expect_close(got.list[1].second, want.list[1].second, DType::f32, 1e-5, each * static_cast<double>(c.rows),
                 "dbias");
  });
}

TEST_P(GeluTest, ManyRowsOfFewColumns) {
  const Case c{65537, 8, DType::bf16, true, false};
  Results got = forward(session(), c), want = forward(reference_session(), c);
  expect_close(got.list[0].second, want.list[0].second, c.dtype, relative, absolute, "y");
  got = backward(session(), c);
  want = backward(reference_session(), c);
  expect_close(got.list[0].second, want.list[0].second, c.dtype, relative, absolute, "dx");
}

TEST_P(GeluTest, TheFirstContributionReplacesWhatWasThere) {
  for (const std::int64_t rows : {0, 1, 40}) {
    const Case c{rows, 33, DType::f32, true, false};
    expect_same(backward(session(), c, std::nan(""), /*accumulate=*/false), backward(session(), c, 0.0));
  }
}

TEST_P(GeluTest, BitsDoNotDependOnThreads) {
  const Case c =
      session().emulated() ? Case{40, 33, DType::bf16, true, false} : Case{300, 129, DType::bf16, true, false};
  session().set_threads(1);
  const Results one_forward = forward(session(), c), one_backward = backward(session(), c);
  for (const int threads : {2, 3, 5}) {
    session().set_threads(threads);
    expect_same(forward(session(), c), one_forward);
    expect_same(backward(session(), c), one_backward);
  }
  const auto same = [](const Results& got, const Results& want) { expect_same(got, want); };
  under_thread_orders(
      session(), [&] { return forward(session(), c); }, same);
  under_thread_orders(
      session(), [&] { return backward(session(), c); }, same);
}

TEST_P(GeluTest, ABiasNeedsAPlaceForTheSum) {
  float value = 0, y = 0;
  EXPECT_THROW(kernels::gelu_forward(exec(), {.x = &value, .bias = &value, .y = &y, .rows = 1, .cols = 1}), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, GeluTest, all_backends(), backend_name);

TEST(GeluReference, IsTheFormulaAndItsDerivative) {
  const auto gelu = [](double x) {
    return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  };
  const Session& session = reference_session();
  Doubles points;
  for (double x = -6; x <= 6; x += 0.125) points.push_back(x);
  const auto count = static_cast<std::int64_t>(points.size());
  const Tensor x(session, DType::f32, points), y(session, DType::f32, points),
      ones(session, DType::f32, Doubles(points.size(), 1.0));
  const Tensor dx(session, DType::f32, points);
  kernels::gelu_forward(session.exec(), {.x = x.data(), .y = y.data(), .rows = 1, .cols = count});
  kernels::gelu_backward(session.exec(),
                         {.dy = ones.data(), .pre = x.data(), .dx = dx.data(), .rows = 1, .cols = count});
  Doubles want, want_dx;
  const double h = 1e-5;
  for (const double point : points) {
    want.push_back(gelu(point));
    want_dx.push_back((gelu(point + h) - gelu(point - h)) / (2 * h));
  }
  expect_close(y.host(), want, DType::f32, 1e-7, 1e-12, "y");
  expect_close(dx.host(), want_dx, DType::f32, 1e-6, 1e-9, "dx");
}

}  // namespace
}  // namespace lockstep::testing
