#include "kernels/relu_pool/relu_pool.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

std::size_t outputs_of(const PoolShape& s) {
  return static_cast<std::size_t>(s.batch * s.out_height() * s.out_width() * s.channels);
}
std::size_t inputs_of(const PoolShape& s) {
  return static_cast<std::size_t>(s.batch * s.height * s.width * s.channels);
}

Results both(const Session& session, const PoolShape& s, DType dtype, const Doubles& pre_values,
             const Doubles& bias_values, const Doubles& dy_values, bool in_place = false) {
  const Tensor pre(session, dtype, pre_values), bias(session, dtype, bias_values), dy(session, dtype, dy_values);
  const Tensor y(session, dtype, Doubles(outputs_of(s), 7)), dpre(session, dtype, Doubles(inputs_of(s), 7));
  kernels::relu_pool_forward(session.exec(),
                             {.pre = pre.data(), .bias = bias.data(), .y = y.data(), .shape = s, .dtype = dtype});
  kernels::relu_pool_backward(session.exec(), {.dy = dy.data(),
                                               .pre = pre.data(),
                                               .bias = bias.data(),
                                               .dpre = in_place ? pre.data() : dpre.data(),
                                               .shape = s,
                                               .dtype = dtype});
  return {{{"y", y.host()}, {"dpre", in_place ? pre.host() : dpre.host()}}, dtype};
}

class ReluPoolTest : public KernelTest {};

TEST_P(ReluPoolTest, TheFirstLargestValueAboveZeroTakesTheGradient) {
  // One image of 3 x 5 with one channel: two windows, a row and a column are left over.
  const PoolShape s{.batch = 1, .height = 3, .width = 5, .channels = 1, .pool = 2};
  const Doubles pre = {1, 4, -3, -2, 9, 4, 0, -5, -1.5, 9, 9, 9, 9, 9, 9};
  const Results got = both(session(), s, DType::f32, pre, {0.5}, {10, 20});
  expect_same(got.list[0].second, {4.5, 0}, "y");
  expect_same(got.list[1].second, {0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "dpre");

  const Results raised = both(session(), s, DType::f32, pre, {2}, {10, 20});
  expect_same(raised.list[0].second, {6, 0.5}, "y");
  expect_same(raised.list[1].second, {0, 10, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0}, "dpre");
}

TEST_P(ReluPoolTest, AgreesWithTheReferenceBitForBit) {
  std::vector<PoolShape> shapes = {
      {2, 4, 6, 3, 2}, {1, 5, 7, 33, 2}, {3, 3, 3, 1, 3}, {2, 7, 8, 5, 3}, {2, 3, 4, 9, 1}};
  if (!session().emulated()) shapes.push_back({3, 14, 14, 300, 2});
  for (const DType dtype : activation_dtypes)
    for (const PoolShape& s : shapes) {
      Doubles pre = random_values(inputs_of(s), 1);
      // Equal ones, infinities and NaN among them.
      for (std::size_t i = 0; i < pre.size(); i += 5) pre[i] = 0.25;
      if (pre.size() > 40) {
        pre[7] = HUGE_VAL;
        pre[18] = -HUGE_VAL;
        pre[29] = std::nan("");
      }
      const Doubles bias = random_values(static_cast<std::size_t>(s.channels), 2, 0.3);
      const Doubles dy = random_values(outputs_of(s), 3);
      const Results want = both(reference_session(), s, dtype, pre, bias, dy);
      for (const int threads : {1, 3}) {
        session().set_threads(threads);
        expect_same(both(session(), s, dtype, pre, bias, dy), want);
        expect_same(both(session(), s, dtype, pre, bias, dy, /*in_place=*/true), want);
      }
    }
}

TEST_P(ReluPoolTest, ThreadOrdersDoNotMatter) {
  const PoolShape s{.batch = 2, .height = 5, .width = 5, .channels = 7, .pool = 2};
  const Doubles pre = random_values(inputs_of(s), 1), dy = random_values(outputs_of(s), 3);
  under_thread_orders(
      session(), [&] { return both(session(), s, DType::f32, pre, Doubles(7), dy, true); },
      [](const Results& got, const Results& want) { expect_same(got, want); });
}

TEST_P(ReluPoolTest, BadArgumentsAreRefused) {
  float number = 0;
  ReluPoolForwardArgs args{.pre = &number, .bias = &number, .y = &number, .shape = {1, 1, 1, 1, 2}};
  EXPECT_THROW(kernels::relu_pool_forward(exec(), args), Error) << "no window";
  args.shape = {1, 1, 1, 1, 1};
  args.bias = nullptr;
  EXPECT_THROW(kernels::relu_pool_forward(exec(), args), Error) << "no bias";
  EXPECT_NO_THROW(kernels::relu_pool_forward(exec(), {.shape = {0, 1, 1, 1, 1}}));
}

INSTANTIATE_TEST_SUITE_P(Kernels, ReluPoolTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
