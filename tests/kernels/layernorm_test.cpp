#include "kernels/layernorm/layernorm.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Shape {
  std::int64_t rows, cols;
};
std::size_t elements(Shape shape) { return static_cast<std::size_t>(shape.rows * shape.cols); }

// Among them the widest rows that a device's warp holds going forward (2048) and back (1024), those of a block (8192),
// and wider ones.
std::vector<Shape> shapes(const Session& session) {
  std::vector<Shape> list = {{1, 1},    {3, 31},   {5, 32},   {33, 33},  {17, 257}, {20, 128}, {9, 512}, {6, 768},
                             {5, 1024}, {2, 1032}, {1, 2048}, {1, 2056}, {2, 6144}, {1, 8192}, {1, 8200}};
  if (!session.emulated()) list.insert(list.end(), {{40, 384}, {18, 1536}, {2, 7001}});
  return list;
}

struct Case {
  Shape shape;
  DType dtype;
  bool residual = false;  // forward: residual given; backward: dsum given
  bool in_place = false;
  std::size_t offset = 0;
};

Doubles inputs(const Case& c, std::uint64_t seed) {
  Doubles x = random_values(elements(c.shape), seed, 3.0);
  for (double& value : x) value += 1.0;
  return x;
}

Results forward(const Session& session, const Case& c, const Doubles& values) {
  const auto rows = static_cast<std::size_t>(c.shape.rows), cols = static_cast<std::size_t>(c.shape.cols);
  const Tensor x(session, c.dtype, values, c.offset);
  const Tensor residual(session, c.dtype, random_values(values.size(), 2), c.offset);
  const Tensor sum(session, c.dtype, Doubles(values.size()), c.offset);
  const Tensor gamma(session, c.dtype, random_values(cols, 3, 2.0), c.offset);
  const Tensor beta(session, c.dtype, random_values(cols, 4), c.offset);
  const Tensor y(session, c.dtype, Doubles(values.size()), c.offset);
  const Tensor mean(session, DType::f32, Doubles(rows)), rstd(session, DType::f32, Doubles(rows));
  const Tensor& out = c.in_place ? residual : sum;
  kernels::layernorm_forward(session.exec(), {.x = x.data(),
                                              .residual = c.residual ? residual.data() : nullptr,
                                              .sum = c.residual ? out.data() : nullptr,
                                              .gamma = gamma.data(),
                                              .beta = beta.data(),
                                              .y = y.data(),
                                              .mean = mean.floats(),
                                              .rstd = rstd.floats(),
                                              .rows = c.shape.rows,
                                              .cols = c.shape.cols,
                                              .dtype = c.dtype});
  return {{{"y", y.host()}, {"sum", out.host()}, {"mean", mean.host()}, {"rstd", rstd.host()}}, c.dtype};
}

/// What is in the gradients before, and whether the kernel adds to it.
struct Before {
  double dgamma = 10.0, dbeta = -10.0;
  bool accumulate_dgamma = true, accumulate_dbeta = true;
};

Results backward(const Session& session, const Case& c, const Before& before = {}) {
  const auto rows = static_cast<std::size_t>(c.shape.rows), cols = static_cast<std::size_t>(c.shape.cols);
  const Tensor x(session, c.dtype, inputs(c, 1), c.offset);
  const Tensor dy(session, c.dtype, random_values(elements(c.shape), 5), c.offset);
  const Tensor dsum(session, c.dtype, random_values(elements(c.shape), 6), c.offset);
  const Tensor gamma(session, c.dtype, random_values(cols, 3, 2.0), c.offset);
  // Any mean and rstd will do: the kernel takes them as given.
  Doubles means(rows), rstds(rows);
  for (std::size_t r = 0; r < rows; ++r) means[r] = 0.9 + 0.01 * static_cast<double>(r % 100), rstds[r] = 0.6;
  const Tensor mean(session, DType::f32, means), rstd(session, DType::f32, rstds);
  const Tensor dx(session, c.dtype, Doubles(elements(c.shape)), c.offset);
  const Tensor dgamma(session, DType::f32, Doubles(cols, before.dgamma));
  const Tensor dbeta(session, DType::f32, Doubles(cols, before.dbeta));
  const Tensor& out = c.in_place ? (c.residual ? dsum : dy) : dx;
  run_with_scratch(session, kernels::layernorm_backward,
                   LayernormBackwardArgs{.dy = dy.data(),
                                         .x = x.data(),
                                         .gamma = gamma.data(),
                                         .mean = mean.floats(),
                                         .rstd = rstd.floats(),
                                         .dsum = c.residual ? dsum.data() : nullptr,
                                         .dx = out.data(),
                                         .dgamma = dgamma.floats(),
                                         .dbeta = dbeta.floats(),
                                         .rows = c.shape.rows,
                                         .cols = c.shape.cols,
                                         .accumulate_dgamma = before.accumulate_dgamma ? 1 : 0,
                                         .accumulate_dbeta = before.accumulate_dbeta ? 1 : 0,
                                         .dtype = c.dtype});
  return {{{"dx", out.host()}, {"dgamma", dgamma.host()}, {"dbeta", dbeta.host()}}, c.dtype};
}

template <class Body>
void for_each_case(const Session& session, const Body& body) {
  for (const DType dtype : activation_dtypes)
    for (const Shape shape : shapes(session))
      for (const bool residual : {false, true}) {
        body(Case{shape, dtype, residual, false, 0});
        body(Case{shape, dtype, residual, residual, 1});
      }
}

void expect_close_results(const Results& got, const Results& want) {
  for (std::size_t i = 0; i < got.list.size(); ++i) {
    const auto& [name, values] = got.list[i];
    const bool activation = name == "y" || name == "sum" || name == "dx";
    // fp32 sums of up to a few thousand terms of order 1.
    expect_close(values, want.list[i].second, activation ? got.dtype : DType::f32, 1e-5, 2e-5, name);
  }
}

class LayernormTest : public KernelTest {};

TEST_P(LayernormTest, ForwardEqualsTheReference) {
  for_each_case(session(), [&](const Case& c) {
    expect_close_results(forward(session(), c, inputs(c, 1)), forward(reference_session(), c, inputs(c, 1)));
  });
}

TEST_P(LayernormTest, BackwardEqualsTheReference) {
  for_each_case(session(),
                [&](const Case& c) { expect_close_results(backward(session(), c), backward(reference_session(), c)); });
}

TEST_P(LayernormTest, ManyRowsOfFewColumns) {
  const Case c{{65537, 8}, DType::bf16, true};
  expect_close_results(forward(session(), c, inputs(c, 1)), forward(reference_session(), c, inputs(c, 1)));
  const Results got = backward(session(), c), want = backward(reference_session(), c);
  expect_close(got.list[0].second, want.list[0].second, c.dtype, 1e-5, 2e-5, "dx");
  // Sums in fp32 of 65,537 terms of order 1 and both signs, which partly cancel.
  expect_close(got.list[1].second, want.list[1].second, DType::f32, 1e-5, 5e-2, "dgamma");
  expect_close(got.list[2].second, want.list[2].second, DType::f32, 1e-5, 5e-2, "dbeta");
}

TEST_P(LayernormTest, TheFirstContributionReplacesWhatWasThere) {
  const double poison = std::nan("");
  for (const std::int64_t rows : {0, 1, 35}) {
    const Case c{{rows, 33}, DType::f32};
    const Results added = backward(session(), c, {.dgamma = 0, .dbeta = 0});
    for (const double value : added.list[1].second) ASSERT_TRUE(std::isfinite(value));
    expect_same(backward(session(), c, {poison, poison, false, false}), added);
    expect_same(backward(session(), c, {poison, 0, false, true}), added);
    expect_same(backward(session(), c, {0, poison, true, false}), added);
  }
}

TEST_P(LayernormTest, BitsDoNotDependOnTheOrderOfThreads) {
  for (const Case& c : {Case{{35, 96}, DType::bf16, true}, Case{{19, 33}, DType::f32, true}}) {
    const auto same = [](const Results& got, const Results& want) { expect_same(got, want); };
    under_thread_orders(
        session(), [&] { return forward(session(), c, inputs(c, 1)); }, same);
    under_thread_orders(
        session(), [&] { return backward(session(), c); }, same);
  }
}

TEST_P(LayernormTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Case c{session().emulated() ? Shape{20, 64} : Shape{150, 385}, DType::f32, true};
  session().set_threads(1);
  const Results one_forward = forward(session(), c, inputs(c, 1)), one_backward = backward(session(), c);
  for (const int threads : {2, 3, 5}) {
    session().set_threads(threads);
    expect_same(forward(session(), c, inputs(c, 1)), one_forward);
    expect_same(backward(session(), c), one_backward);
  }
}

TEST_P(LayernormTest, ANonFiniteValueSpoilsItsOwnRowAlone) {
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    const Case c{{3, 40}, DType::f32};
    Doubles x = inputs(c, 1);
    x[40 + 7] = bad;
    const Doubles y = forward(session(), c, x).list[0].second;
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isfinite(y[i]), i / 40 != 1) << i;
  }
}

TEST_P(LayernormTest, AConstantRowGivesBeta) {
  const Case c{{2, 48}, DType::f32};
  const Doubles y = forward(session(), c, Doubles(96, 123.0)).list[0].second;
  const Doubles beta = random_values(48, 4);
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(static_cast<float>(y[i]), static_cast<float>(beta[i % 48]));
}

TEST_P(LayernormTest, AResidualWithoutAPlaceForTheSumIsRefused) {
  float value = 0;
  EXPECT_THROW(kernels::layernorm_forward(exec(), {.x = &value,
                                                   .residual = &value,
                                                   .gamma = &value,
                                                   .beta = &value,
                                                   .y = &value,
                                                   .mean = &value,
                                                   .rstd = &value,
                                                   .rows = 1,
                                                   .cols = 1}),
               Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, LayernormTest, all_backends(), backend_name);

TEST(LayernormReference, ARowWorkedOutByHand) {
  // 1 2 3 4: mean 5/2, variance 5/4.
  const Session& session = reference_session();
  const Tensor x(session, DType::f32, {1, 2, 3, 4}), gamma(session, DType::f32, {1, 2, 1, 2});
  const Tensor beta(session, DType::f32, {0, 0, 1, 1}), y(session, DType::f32, Doubles(4));
  const Tensor mean(session, DType::f32, {0}), rstd(session, DType::f32, {0});
  kernels::layernorm_forward(session.exec(), {.x = x.data(),
                                              .gamma = gamma.data(),
                                              .beta = beta.data(),
                                              .y = y.data(),
                                              .mean = mean.floats(),
                                              .rstd = rstd.floats(),
                                              .rows = 1,
                                              .cols = 4,
                                              .eps = 0.0F});
  const double s = 1.0 / std::sqrt(1.25);
  EXPECT_EQ(mean.host()[0], 2.5);
  EXPECT_EQ(rstd.host()[0], static_cast<double>(static_cast<float>(s)));
  expect_close(y.host(), {-1.5 * s, -1.0 * s, 0.5 * s + 1, 3.0 * s + 1}, DType::f32, 1e-7, 0, "y");
}

TEST(LayernormReference, BackwardIsTheDerivativeOfForward) {
  // loss = sum w y in double; its derivative by central differences.
  const Session& session = reference_session();
  const std::size_t cols = 7;
  const Doubles gamma_values = random_values(cols, 3, 2.0), w = random_values(cols, 5);
  Doubles x_values = random_values(cols, 1, 3.0);
  for (double& value : x_values) value = static_cast<double>(static_cast<float>(value));
  const auto statistics = [&](const Doubles& x) {
    double mean = 0, variance = 0;
    for (const double value : x) mean += value / cols;
    for (const double value : x) variance += (value - mean) * (value - mean) / cols;
    return std::pair(mean, 1.0 / std::sqrt(variance + 1e-5));
  };
  const auto loss = [&](const Doubles& x) {
    const auto [mean, rstd] = statistics(x);
    double sum = 0;
    for (std::size_t c = 0; c < cols; ++c) sum += w[c] * gamma_values[c] * (x[c] - mean) * rstd;
    return sum;
  };
  const auto [m, r] = statistics(x_values);
  const Tensor x(session, DType::f32, x_values), dy(session, DType::f32, w), gamma(session, DType::f32, gamma_values);
  const Tensor mean(session, DType::f32, {m}), rstd(session, DType::f32, {r}), dx(session, DType::f32, Doubles(cols));
  const Tensor dgamma(session, DType::f32, Doubles(cols)), dbeta(session, DType::f32, Doubles(cols));
  run_with_scratch(session, kernels::layernorm_backward,
                   LayernormBackwardArgs{.dy = dy.data(),
                                         .x = x.data(),
                                         .gamma = gamma.data(),
                                         .mean = mean.floats(),
                                         .rstd = rstd.floats(),
                                         .dx = dx.data(),
                                         .dgamma = dgamma.floats(),
                                         .dbeta = dbeta.floats(),
                                         .rows = 1,
                                         .cols = cols});
  const double h = 1e-5;
  Doubles want(cols), want_gamma(cols);
  for (std::size_t c = 0; c < cols; ++c) {
    Doubles up = x_values, down = x_values;
    up[c] += h;
    down[c] -= h;
    want[c] = (loss(up) - loss(down)) / (2 * h);
    want_gamma[c] = w[c] * (x_values[c] - m) * r;
  }
  expect_close(dx.host(), want, DType::f32, 1e-5, 1e-6, "dx");
  expect_close(dgamma.host(), want_gamma, DType::f32, 1e-6, 1e-6, "dgamma");
  expect_close(dbeta.host(), w, DType::f32, 1e-7, 0, "dbeta");
}

}  // namespace
}  // namespace lockstep::testing
