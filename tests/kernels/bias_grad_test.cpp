#include "kernels/bias_grad/bias_grad.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

Doubles column_sums(const Session& session, DType dtype, std::int64_t rows, std::int64_t cols, const Doubles& dy_values,
                    const Doubles& start, std::size_t offset = 0, bool accumulate = true) {
  const Tensor dy(session, dtype, dy_values, offset), dbias(session, DType::f32, start);
  run_with_scratch(session, kernels::bias_grad,
                   BiasGradArgs{.dy = dy.data(),
                                .dbias = dbias.floats(),
                                .rows = rows,
                                .cols = cols,
                                .accumulate = accumulate ? 1 : 0,
                                .dtype = dtype});
  return dbias.host();
}

class BiasGradTest : public KernelTest {};

TEST_P(BiasGradTest, IntegersAddUpExactly) {
  // Whole numbers up to 8 are exact in every dtype, and so are their sums in fp32.
  for (const DType dtype : activation_dtypes)
    for (const std::int64_t rows : {1, 31, 32, 33, 100})
      for (const std::int64_t cols : {1, 31, 32, 33, 257, 264})
        for (const std::size_t offset : {std::size_t{0}, std::size_t{1}}) {
          if (session().emulated() && rows == 100 && cols > 33) continue;
          Doubles dy(static_cast<std::size_t>(rows * cols)), start(static_cast<std::size_t>(cols));
          Doubles want(start.size());
          for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<double>(i * 7 % 17) - 8.0;
          for (std::size_t c = 0; c < start.size(); ++c) {
            want[c] = start[c] = 100.0 * static_cast<double>(c);
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) want[c] += dy[r * start.size() + c];
          }
          expect_same(column_sums(session(), dtype, rows, cols, dy, start, offset), want,
                      fmt::format("{} {} x {}", to_string(dtype), rows, cols));
        }
}

TEST_P(BiasGradTest, AgreesWithTheReferenceAndNotWithTheThreads) {
  const std::int64_t rows = session().emulated() ? 70 : 2050, cols = session().emulated() ? 40 : 393;
  const Doubles dy = random_values(static_cast<std::size_t>(rows * cols), 1);
  const Doubles start = random_values(static_cast<std::size_t>(cols), 2);
  session().set_threads(1);
  const Doubles one = column_sums(session(), DType::bf16, rows, cols, dy, start);
  expect_close(one, column_sums(reference_session(), DType::bf16, rows, cols, dy, start), DType::f32, 1e-5, 1e-4,
               "dbias");
  for (const int threads : {2, 3, 7}) {
    session().set_threads(threads);
    expect_same(column_sums(session(), DType::bf16, rows, cols, dy, start), one, "threads");
  }
  under_thread_orders(
      session(), [&] { return column_sums(session(), DType::bf16, rows, cols, dy, start); },
      [](const Doubles& got, const Doubles& want) { expect_same(got, want, "order"); });
}

TEST_P(BiasGradTest, ManyRowsAddUpExactly) {
  const std::int64_t rows = 65537;
  for (const std::int64_t cols : {1, 8}) {
    // Ones and minus ones: every partial sum is a small whole number.
    Doubles dy(static_cast<std::size_t>(rows * cols)), want(static_cast<std::size_t>(cols));
    for (std::size_t i = 0; i < dy.size(); ++i) {
      dy[i] = i * 7 % 5 < 2 ? 1.0 : -1.0;
      want[i % want.size()] += dy[i];
    }
    expect_same(column_sums(session(), DType::bf16, rows, cols, dy, Doubles(want.size())), want, "dbias");
  }
}

TEST_P(BiasGradTest, TheFirstContributionReplacesWhatWasThere) {
  for (const std::int64_t rows : {0, 1, 33}) {
    const std::size_t cols = 45;
    const Doubles dy = random_values(static_cast<std::size_t>(rows) * cols, 1);
    const Doubles written =
        column_sums(session(), DType::f32, rows, 45, dy, Doubles(cols, std::nan("")), 0, /*accumulate=*/false);
    const Doubles added = column_sums(session(), DType::f32, rows, 45, dy, Doubles(cols));
    for (const double value : added) ASSERT_TRUE(std::isfinite(value));
    expect_same(written, added, "dbias");
  }
}

TEST_P(BiasGradTest, ANonFiniteValueSpoilsItsOwnColumnAlone) {
  Doubles dy(40 * 50, 1.0);
  dy[35 * 50 + 3] = HUGE_VAL;
  dy[7 * 50 + 49] = std::nan("");
  const Doubles sums = column_sums(session(), DType::f16, 40, 50, dy, Doubles(50));
  for (std::size_t c = 0; c < 50; ++c) EXPECT_EQ(std::isfinite(sums[c]), c != 3 && c != 49) << c;
}

TEST_P(BiasGradTest, ScratchIsNeededWhereTheTableAsksForIt) {
  const Tensor value(session(), DType::f32, {1.0}), sum(session(), DType::f32, {0.0});
  const BiasGradArgs args = {.dy = value.data(), .dbias = sum.floats(), .rows = 1, .cols = 1};
  if (kernels::scratch_bytes(exec(), args) == 0)
    EXPECT_NO_THROW(kernels::bias_grad(exec(), args));
  else
    EXPECT_THROW(kernels::bias_grad(exec(), args), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, BiasGradTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
