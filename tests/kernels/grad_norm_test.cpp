#include "kernels/grad_norm/grad_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

template <class T>
StepReport run(const Session& session, const std::vector<std::vector<T>>& values, std::uint64_t begin,
               std::uint64_t count) {
  std::vector<std::unique_ptr<Array<T>>> sources;
  GradNormArgs args;
  for (const auto& source : values) {
    sources.push_back(std::make_unique<Array<T>>(session, source));
    args.grad.source[sources.size() - 1] = sources.back()->data();
  }
  args.grad.count = static_cast<std::int32_t>(values.size());
  args.grad.dtype = dtype_of<T>;
  const Array<double> sums(session, norm_chunks(count) + 1);
  const Array<std::int64_t> bad(session, norm_chunks(count) + 1);
  const Array<LossSum> loss(session, std::vector<LossSum>{{12.5, 4.0}});
  const Array<StepInputs> inputs(session, std::vector<StepInputs>{{.own_digest = 7, .stop = 1}});
  const Array<StepReport> report(session, 1);
  args.begin = begin;
  args.count = count;
  args.chunk_sums = sums.data();
  args.chunk_bad = bad.data();
  args.loss = loss.data();
  args.inputs = inputs.data();
  args.report = report.data();
  kernels::grad_norm(session.exec(), args);
  return report.host()[0];
}

void expect_equal(const StepReport& a, const StepReport& b) {
  EXPECT_TRUE(bits_of(a.norm2) == bits_of(b.norm2) || (std::isnan(a.norm2) && std::isnan(b.norm2)))
      << a.norm2 << " and " << b.norm2;
  EXPECT_EQ(a.first_bad, b.first_bad);
}

class GradNorm : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};

  template <class T>
  void check(const std::vector<std::vector<T>>& values, std::uint64_t begin, std::uint64_t count) {
    const auto body = [&] { return run(session(), values, begin, count); };
    expect_equal(body(), run(reference_, values, begin, count));
    under_thread_orders(session(), body, expect_equal);
  }
};

TEST_P(GradNorm, EqualsTheReferenceBitForBit) {
  for (const std::size_t count : {0, 1, 31, 32, 33, 255, 256, 257, 100003, 200000})
    check<float>({normal_values<float>(count, 1)}, 0, count);
  check<bf16>({normal_values<bf16>(5003, 1), normal_values<bf16>(5003, 2)}, 0, 5003);
  check<f16>({normal_values<f16>(5003, 1), normal_values<f16>(5003, 2), normal_values<f16>(5003, 3)}, 0, 5003);
  check<float>({normal_values<float>(100003, 1), normal_values<float>(100003, 2)}, norm_chunk, 100003 - norm_chunk);
}

TEST_P(GradNorm, MatchesAPlainSumInDouble) {
  const std::size_t count = 100003;
  const std::vector<float> a = normal_values<float>(count, 1), b = normal_values<float>(count, 2);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += std::pow(static_cast<double>(a[i] + b[i]), 2);
  const StepReport report = run<float>(session(), {a, b}, 0, count);
  EXPECT_NEAR(report.norm2, sum, 1e-12 * sum);
  EXPECT_EQ(report.first_bad, -1);
  EXPECT_EQ(report.loss_sum, 12.5);
  EXPECT_EQ(report.weight_sum, 4.0);
  EXPECT_EQ(report.stop, 1);
}

TEST_P(GradNorm, HugeAndTinyValuesNeitherOverflowNorVanish) {
  std::vector<float> values(1000, std::numeric_limits<float>::max());
  const double max = static_cast<double>(std::numeric_limits<float>::max());
  StepReport report = run<float>(session(), {values}, 0, 1000);
  EXPECT_NEAR(report.norm2 / (1000 * max * max), 1, 1e-12);
  EXPECT_EQ(report.first_bad, -1);
  values.assign(1000, 1e-30F);
  report = run<float>(session(), {values}, 0, 1000);
  const double tiny = static_cast<double>(1e-30F);
  EXPECT_NEAR(report.norm2 / (1000 * tiny * tiny), 1, 1e-12);
}

TEST_P(GradNorm, FindsTheFirstBadElement) {
  const std::size_t count = 100003;
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {inf, -inf, nan}) {
    for (const std::size_t first : {std::size_t{0}, std::size_t{77}, std::size_t{70001}, count - 1}) {
      std::vector<float> values = normal_values<float>(count, 1);
      values[first] = bad;
      values[count - 1] = nan;
      const StepReport report = run<float>(session(), {values}, 0, count);
      EXPECT_EQ(report.first_bad, static_cast<std::int64_t>(first));
      EXPECT_FALSE(std::isfinite(report.norm2));
    }
  }
  std::vector<float> values = normal_values<float>(count, 1);
  values[norm_chunk + 3] = nan;
  EXPECT_EQ(run<float>(session(), {values}, norm_chunk, count - norm_chunk).first_bad,
            static_cast<std::int64_t>(norm_chunk + 3));
}

TEST_P(GradNorm, ASumThatOverflowsIsBadThoughItsSourcesAreNot) {
  std::vector<float> values(40, 1.0F);
  values[39] = 3e38F;
  EXPECT_EQ(run<float>(session(), {values, values}, 0, 40).first_bad, 39);
}

TEST_P(GradNorm, ThreadsDoNotChangeTheResult) {
  const std::vector<std::vector<float>> values = {normal_values<float>(300000, 1)};
  const Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, values, 0, 300000), run(one, values, 0, 300000));
}

TEST_P(GradNorm, RefusesABeginInsideAChunk) {
  StepReport report;
  GradNormArgs args;
  args.begin = 100;
  args.report = &report;
  EXPECT_THROW(kernels::grad_norm(exec(), args), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, GradNorm, all_backends(), backend_name);

double split_at_power_of_two(const double* values, std::size_t count) {
  if (count == 0) return 0;
  if (count == 1) return values[0];
  std::size_t left = 1;
  while (2 * left < count) left *= 2;
  return split_at_power_of_two(values, left) + split_at_power_of_two(values + left, count - left);
}

TEST(SumTree, IsTheTreeSplitAtPowersOfTwo) {
  for (std::size_t count = 0; count < 70; ++count) {
    std::vector<double> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = normal_at(7, RngStream::synthetic, 1, i);
    EXPECT_EQ(sum_tree(values.data(), count), split_at_power_of_two(values.data(), count)) << count;
  }
}

}  // namespace
}  // namespace lockstep::testing
