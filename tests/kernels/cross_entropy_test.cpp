#include "kernels/cross_entropy/cross_entropy.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::int64_t rows, classes, stride;
  DType dtype = DType::f32;
  std::size_t offset = 0;
  double range = 4.0;
  bool want_grad = true;
};

/// Logits with huge padding, which nothing may look at.
Doubles logits_for(const Case& c) {
  Doubles logits = random_values(static_cast<std::size_t>(c.rows * c.stride), 1, c.range);
  for (std::int64_t r = 0; r < c.rows; ++r)
    for (std::int64_t k = c.classes; k < c.stride; ++k) logits[static_cast<std::size_t>(r * c.stride + k)] = 6e4;
  return logits;
}
std::vector<std::int32_t> targets_for(const Case& c) {
  auto targets = random_tokens(static_cast<std::size_t>(c.rows), 2, static_cast<std::int32_t>(c.classes));
  for (std::size_t r = 3; r < targets.size(); r += 5) targets[r] = -1;
  return targets;
}

constexpr double grad_factor = 0.25, scale = 64.0;

Results run(const Session& session, const Case& c, const Doubles& logit_values,
            const std::vector<std::int32_t>& target_values) {
  const Tensor logits(session, c.dtype, logit_values, c.offset);
  const Array<std::int32_t> targets(session, target_values);
  const Tensor losses(session, DType::f32, Doubles(target_values.size(), 99.0));
  const Array<LossSum> sum(session, std::vector<LossSum>{{.loss = 2.0, .weight = 1.0}});
  const Array<StepState> state(session, std::vector<StepState>{{.scale = scale}});
  const Array<double> factor(session, std::vector<double>{grad_factor});
  kernels::cross_entropy(session.exec(), {.logits = logits.data(),
                                          .targets = targets.data(),
                                          .losses = losses.floats(),
                                          .sum = sum.data(),
                                          .rows = c.rows,
                                          .classes = c.classes,
                                          .stride = c.stride,
                                          .want_grad = c.want_grad ? 1 : 0,
                                          .grad_factor = factor.data(),
                                          .state = state.data(),
                                          .dtype = c.dtype});
  const LossSum total = sum.host()[0];
  return {{{"logits", logits.host()}, {"losses", losses.host()}, {"sum", {total.loss, total.weight}}}, c.dtype};
}
Results run(const Session& session, const Case& c) { return run(session, c, logits_for(c), targets_for(c)); }

void expect_close_results(const Results& got, const Results& want, double range) {
  // exp's argument is exact, exp itself good to 2 units; a sum of up to 50257 terms; the loss subtracts the logits.
  expect_close(got.list[0].second, want.list[0].second, got.dtype, 2e-5, 1e-6 * grad_factor * scale, "gradient");
  expect_close(got.list[1].second, want.list[1].second, DType::f32, 1e-6, 2e-6 + 2e-7 * range, "losses");
}

template <class Body>
void for_each_case(const Session& session, const Body& body) {
  for (const DType dtype : activation_dtypes) {
    for (const std::int64_t classes : {1, 5, 31, 32, 33, 63, 257}) {
      body(Case{7, classes, classes, dtype});
      body(Case{7, classes, (classes + 63) / 64 * 64, dtype});
      body(Case{7, classes, classes + 3, dtype, 1, 30.0});
    }
    if (session.emulated()) continue;
    body(Case{130, 63, 64, dtype});
    body(Case{9, 5000, 5056, dtype});
    body(Case{3, 50257, 50304, dtype});
  }
}

class CrossEntropyTest : public KernelTest {};

TEST_P(CrossEntropyTest, EqualsTheReference) {
  for_each_case(session(),
                [&](const Case& c) { expect_close_results(run(session(), c), run(reference_session(), c), c.range); });
}

TEST_P(CrossEntropyTest, ManyRowsOfFewClasses) {
  const Case c{65537, 5, 8, DType::bf16};
  expect_close_results(run(session(), c), run(reference_session(), c), c.range);
}

TEST_P(CrossEntropyTest, ALogitOfMinusInfinityHasProbabilityZero) {
  for (const DType dtype : activation_dtypes) {
    const Case c{2, 600, 600, dtype};
    Doubles logits(1200, -HUGE_VAL);  // most threads of a device see nothing else
    logits[7] = 1.0;
    logits[600 + 599] = 2.0;
    logits[600 + 3] = 2.0;
    const Results got = run(session(), c, logits, {7, 3});
    EXPECT_EQ(got.list[1].second[0], 0.0);
    EXPECT_NEAR(got.list[1].second[1], std::log(2.0), 1e-6);
    for (std::size_t i = 0; i < 1200; ++i) {
      const double want = i == 603 ? -0.5 : i == 1199 ? 0.5 : 0.0;
      EXPECT_NEAR(got.list[0].second[i], want * grad_factor * scale, 1e-6 * grad_factor * scale) << i;
    }
  }
}

TEST_P(CrossEntropyTest, PaddingAndUncountedRowsGetNoGradient) {
  for (const DType dtype : activation_dtypes) {
    const Case c{9, 50, 64, dtype};
    const Results got = run(session(), c);
    const std::vector<std::int32_t> targets = targets_for(c);
    for (std::size_t r = 0; r < 9; ++r) {
      double sum = 0;
      for (std::size_t k = 0; k < 64; ++k) {
        const double gradient = got.list[0].second[r * 64 + k];
        if (k >= 50 || targets[r] < 0) {
          EXPECT_EQ(gradient, 0.0);
        }
        sum += gradient;
      }
      EXPECT_NEAR(sum, 0.0, spacing(dtype) * grad_factor * scale);  // softmax and one-hot both add up to 1
      EXPECT_EQ(got.list[1].second[r] == 0.0, targets[r] < 0);
    }
  }
}

TEST_P(CrossEntropyTest, LossesAreAddedInRowOrderByBlocks) {
  for (const std::int64_t rows : {1, 63, 64, 65, 200}) {
    const Case c{rows, 6, 8};
    const Results got = run(session(), c);
    const std::vector<std::int32_t> targets = targets_for(c);
    double loss = 2.0, weight = 1.0;
    for (std::int64_t block = 0; block < rows; block += loss_rows_per_block) {
      double block_loss = 0;
      for (std::int64_t r = block; r < std::min(rows, block + loss_rows_per_block); ++r) {
        block_loss += got.list[1].second[static_cast<std::size_t>(r)];
        weight += targets[static_cast<std::size_t>(r)] >= 0 ? 1.0 : 0.0;
      }
      loss += block_loss;
    }
    expect_same(got.list[2].second, {loss, weight}, "sum");
  }
}

TEST_P(CrossEntropyTest, WithoutGradientTheLogitsStay) {
  Case c{6, 40, 48, DType::bf16};
  const Results with = run(session(), c);
  c.want_grad = false;
  const Results without = run(session(), c);
  const Tensor logits(session(), c.dtype, logits_for(c));
  expect_same(without.list[0].second, logits.host(), "logits");
  expect_same(without.list[1].second, with.list[1].second, "losses");
  expect_same(without.list[2].second, with.list[2].second, "sum");
}

TEST_P(CrossEntropyTest, HugeLogitsAreStable) {
  for (const DType dtype : activation_dtypes) {
    const Case c{2, 40, 40, dtype};
    Doubles logits(80, -1e4);
    logits[5] = 1e4;       // row 0: certain, and right
    logits[40 + 7] = 1e4;  // row 1: certain, and wrong
    const Results got = run(session(), c, logits, {5, 6});
    for (const double gradient : got.list[0].second) EXPECT_TRUE(std::isfinite(gradient));
    EXPECT_EQ(got.list[1].second[0], 0.0);
    EXPECT_NEAR(got.list[1].second[1], 2e4, 2e4 * spacing(dtype));
    EXPECT_EQ(got.list[0].second[40 + 6], -grad_factor * scale);
    EXPECT_EQ(got.list[0].second[40 + 7], grad_factor * scale);
    EXPECT_EQ(got.list[0].second[5], 0.0);
  }
}

TEST_P(CrossEntropyTest, ALogitThatOverflowedReachesEveryGradientOfItsRow) {
  for (const double bad : {HUGE_VAL, std::nan("")}) {
    const Case c{3, 40, 48, DType::f16};
    Doubles logits = logits_for(c);
    logits[48 + 11] = bad;
    const Results got = run(session(), c, logits, {1, 2, 3});
    for (std::size_t i = 0; i < 3 * 48; ++i)
      EXPECT_EQ(std::isfinite(got.list[0].second[i]), i / 48 != 1 || i % 48 >= 40) << i;
    EXPECT_FALSE(std::isfinite(got.list[1].second[1]));
    EXPECT_TRUE(std::isfinite(got.list[1].second[0]) && std::isfinite(got.list[1].second[2]));
  }
}

TEST_P(CrossEntropyTest, BitsDoNotDependOnThreads) {
  const Case c = session().emulated() ? Case{70, 63, 64, DType::bf16} : Case{300, 63, 64, DType::bf16};
  session().set_threads(1);
  const Results one = run(session(), c);
  for (const int threads : {2, 3, 5}) {
    session().set_threads(threads);
    expect_same(run(session(), c), one);
  }
  under_thread_orders(
      session(), [&] { return run(session(), c); },
      [](const Results& got, const Results& first) { expect_same(got, first); });
}

TEST_P(CrossEntropyTest, ATargetOutsideIsADataError) {
  if (session().on_gpu()) GTEST_SKIP() << "the host cannot read the targets: the GPU gives NaN instead";
  const Case c{1, 3, 3};
  for (const std::int32_t target : {3, -2}) EXPECT_THROW((void)run(session(), c, {0, 0, 0}, {target}), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, CrossEntropyTest, all_backends(), backend_name);

TEST(CrossEntropyReference, ARowWorkedOutByHand) {
  // Probabilities 1/10, 2/10, 3/10, 4/10.
  const Case c{1, 4, 4};
  const Results got = run(reference_session(), c, {std::log(1.0), std::log(2.0), std::log(3.0), std::log(4.0)}, {2});
  const double f = grad_factor * scale;
  expect_close(got.list[0].second, {0.1 * f, 0.2 * f, -0.7 * f, 0.4 * f}, DType::f32, 1e-6, 0, "gradient");
  EXPECT_NEAR(got.list[1].second[0], -std::log(0.3), 1e-6);
}

}  // namespace
}  // namespace lockstep::testing
