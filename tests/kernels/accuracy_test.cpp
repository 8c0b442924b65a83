#include "kernels/accuracy/accuracy.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/activations.hpp"

namespace lockstep::testing {
namespace {

std::int64_t correct_rows(const Session& session, DType dtype, std::int64_t classes, std::int64_t stride,
                          const Doubles& logits, const std::vector<std::int32_t>& targets) {
  const Tensor x(session, dtype, logits);
  const Array<std::int32_t> t(session, targets);
  const Array<std::int64_t> correct(session, std::vector<std::int64_t>{1000});
  kernels::accuracy(session.exec(), {.logits = x.data(),
                                     .targets = t.data(),
                                     .correct = correct.data(),
                                     .rows = static_cast<std::int64_t>(targets.size()),
                                     .classes = classes,
                                     .stride = stride,
                                     .dtype = dtype});
  return correct.host()[0] - 1000;
}

class AccuracyTest : public KernelTest {};

TEST_P(AccuracyTest, TheFirstOfTheLargestIsTheAnswer) {
  const double inf = HUGE_VAL, nan = std::nan("");
  // One row of three classes and a column of padding each.
  const std::vector<Doubles> rows = {{1, 2, 0, 9},   {1, 2, 2, 0},   {2, 1, 2, 0},   {-inf, -inf, -inf, 0},
                                     {inf, 0, 1, 0}, {nan, 3, 1, 0}, {1, 3, nan, 0}, {-1, -2, -3, 5}};
  const std::vector<std::int32_t> answer = {1, 1, 0, 0, 0, -1, -1, 0};
  for (const DType dtype : activation_dtypes)
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (std::int32_t target = -1; target < 3; ++target)
        EXPECT_EQ(correct_rows(session(), dtype, 3, 4, rows[r], {target}), target >= 0 && target == answer[r] ? 1 : 0)
            << to_string(dtype) << " row " << r << " target " << target;
}

TEST_P(AccuracyTest, CountsEveryRowOnceOnAnyNumberOfThreads) {
  for (const std::int64_t count : {1, 31, 32, 33, 255, 256, 257, 3000})
    for (const std::int64_t classes : {1, 10, 33}) {
      if (session().emulated() && count > 257 && classes > 10) continue;
      const Doubles logits = random_values(static_cast<std::size_t>(count * classes), 3);
      std::vector<std::int32_t> targets(static_cast<std::size_t>(count));
      std::int64_t expected = 0;
      for (std::size_t r = 0; r < targets.size(); ++r) {
        const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r) * classes;
        const auto best = static_cast<std::int32_t>(std::max_element(begin, begin + classes) - begin);
        targets[r] = r % 3 == 0   ? best
                     : r % 3 == 1 ? static_cast<std::int32_t>(r) % static_cast<std::int32_t>(classes)
                                  : -1;
        expected += targets[r] == best ? 1 : 0;
      }
      for (const int threads : {1, 3}) {
        session().set_threads(threads);
        EXPECT_EQ(correct_rows(session(), DType::f32, classes, classes, logits, targets), expected)
            << count << " x " << classes;
      }
    }
}

TEST_P(AccuracyTest, NothingIsCountedOfNoRows) {
  const Array<std::int64_t> correct(session(), std::vector<std::int64_t>{7});
  kernels::accuracy(exec(), {.correct = correct.data(), .classes = 3, .stride = 3});
  EXPECT_EQ(correct.host()[0], 7);
}

TEST_P(AccuracyTest, BadArgumentsAreRefused) {
  std::int64_t correct = 0;
  const std::int32_t target = 0;
  const float logit = 0;
  EXPECT_THROW(
      kernels::accuracy(exec(), {.targets = &target, .correct = &correct, .rows = 1, .classes = 1, .stride = 1}),
      Error);
  EXPECT_THROW(
      kernels::accuracy(
          exec(), {.logits = &logit, .targets = &target, .correct = &correct, .rows = 1, .classes = 2, .stride = 1}),
      Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, AccuracyTest, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
