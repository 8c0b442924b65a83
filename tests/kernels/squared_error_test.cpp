#include "kernels/squared_error/squared_error.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Outcome {
  Doubles gradient, losses;
  LossSum sum;
};

Outcome run(const Session& session, DType dtype, std::int64_t cols, const Doubles& predictions, const Doubles& values,
            const std::vector<std::int32_t>& targets, bool want_grad = true) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const Tensor p(session, dtype, predictions), v(session, DType::f32, values);
  const Tensor losses(session, DType::f32, Doubles(targets.size(), 7));
  const Array<std::int32_t> t(session, targets);
  const Array<LossSum> sum(session, std::vector<LossSum>{{.loss = 2, .weight = 1}});
  const Array<double> factor(session, std::vector<double>{0.25});
  const Array<StepState> state(session, std::vector<StepState>{{.scale = 8}});
  kernels::squared_error(session.exec(), {.predictions = p.data(),
                                          .values = v.floats(),
                                          .targets = t.data(),
                                          .losses = losses.floats(),
                                          .sum = sum.data(),
                                          .rows = rows,
                                          .cols = cols,
                                          .want_grad = want_grad ? 1 : 0,
                                          .grad_factor = factor.data(),
                                          .state = state.data(),
                                          .dtype = dtype});
  return {p.host(), losses.host(), sum.host()[0]};
}

class SquaredErrorTest : public KernelTest {};

TEST_P(SquaredErrorTest, LossAndGradientAreThoseOfTheFormula) {
  const Outcome got = run(session(), DType::f32, 2, {1, 2, 3, 4, 5, 6}, {0, 4, 9, 9, 5, 7}, {0, -1, 0});
  expect_same(got.losses, {(1.0 + 4) / 2, 0, 0.5}, "losses");
  EXPECT_EQ(got.sum.loss, 2 + 2.5 + 0.5);
  EXPECT_EQ(got.sum.weight, 1 + 2);
  // 2 (p - v) / 2 columns x 0.25 x scale 8
  expect_same(got.gradient, {2, -4, 0, 0, 0, -2}, "gradient");
}

TEST_P(SquaredErrorTest, EvaluationLeavesThePredictions) {
  const Outcome got = run(session(), DType::f32, 1, {1, 2}, {3, 2}, {0, 0}, false);
  expect_same(got.gradient, {1, 2}, "predictions");
  EXPECT_EQ(got.sum.loss, 2 + 4);
}

TEST_P(SquaredErrorTest, AgreesWithTheReferenceBitForBitOnAnyNumberOfThreads) {
  for (const DType dtype : activation_dtypes)
    for (const std::int64_t cols : {1, 3, 33})
      for (const std::size_t rows :
           {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{700}}) {
        if (session().emulated() && rows > 65 && cols > 3) continue;
        Doubles p = random_values(rows * static_cast<std::size_t>(cols), 1);
        const Doubles v = random_values(p.size(), 2);
        if (rows > 1) p[1] = std::nan("");
        std::vector<std::int32_t> targets(rows, 0);
        for (std::size_t r = 3; r < rows; r += 7) targets[r] = -1;
        const Outcome want = run(reference_session(), dtype, cols, p, v, targets);
        for (const int threads : {1, 3}) {
          session().set_threads(threads);
          const Outcome got = run(session(), dtype, cols, p, v, targets);
          expect_same(got.losses, want.losses, "losses");
          expect_same(got.gradient, want.gradient, "gradient");
          expect_same({got.sum.loss, got.sum.weight}, {want.sum.loss, want.sum.weight}, "sum");
        }
      }
}

TEST_P(SquaredErrorTest, BadArgumentsAreRefused) {
  float number = 0;
  EXPECT_THROW(kernels::squared_error(exec(), {.predictions = &number, .rows = 1, .cols = 1}), Error);
  EXPECT_THROW(kernels::squared_error(exec(), {.rows = 1, .cols = 0}), Error);
  EXPECT_NO_THROW(kernels::squared_error(exec(), {.rows = 0, .cols = 1}));
}

INSTANTIATE_TEST_SUITE_P(Kernels, SquaredErrorTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
