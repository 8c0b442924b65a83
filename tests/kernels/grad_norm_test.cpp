#include "kernels/grad_norm/grad_norm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

/// The leaves of a space of `count` elements that is one unit.
std::vector<NormLeaf> leaves_of(std::size_t count) {
  std::vector<NormLeaf> leaves;
  for (std::size_t i = 0; i < count; i += norm_leaf_elements)
    leaves.push_back({i, i, static_cast<std::uint32_t>(std::min<std::size_t>(norm_leaf_elements, count - i)),
                      static_cast<std::uint32_t>(leaves.size())});
  return leaves;
}

/// Gradient sources in a backend's memory.
template <class T>
struct Sources {
  Sources(const Session& session, const std::vector<std::vector<T>>& values, Extent extent = Extent::full) {
    for (const auto& source : values) {
      arrays.push_back(std::make_unique<Array<T>>(session, source));
      grad.source[arrays.size() - 1] = arrays.back()->data();
    }
    grad.count = static_cast<std::int32_t>(values.size());
    grad.dtype = dtype_of<T>;
    grad.extent = extent;
  }
  std::vector<std::unique_ptr<Array<T>>> arrays;
  GradSources grad;
};

/// Both kernels over one rank's list of leaves.
StepReport report_of(const Session& session, const GradSources& grad, const std::vector<NormLeaf>& list) {
  const Array<NormLeaf> leaves(session, list);
  const Array<double> sums(session, list.size());
  const Array<std::int64_t> bad(session, list.size());
  const Array<LossSum> loss(session, std::vector<LossSum>{{12.5, 4.0}});
  const Array<StepInputs> inputs(session, std::vector<StepInputs>{{.own_digest = 7, .stop = 1}});
  const Array<StepReport> report(session, 1);
  const auto count = static_cast<std::uint32_t>(list.size());
  kernels::grad_leaf_sums(
      session.exec(),
      {.grad = grad, .leaves = leaves.data(), .leaf_count = count, .sums = sums.data(), .bad = bad.data()});
  kernels::grad_norm(session.exec(), {.sums = sums.data(),
                                      .sum_count = count,
                                      .bad = bad.data(),
                                      .bad_count = count,
                                      .loss = loss.data(),
                                      .inputs = inputs.data(),
                                      .report = report.data()});
  return report.host()[0];
}

template <class T>
StepReport run(const Session& session, const std::vector<std::vector<T>>& values) {
  return report_of(session, Sources<T>(session, values).grad, leaves_of(values.front().size()));
}

void expect_equal(const StepReport& a, const StepReport& b) {
  EXPECT_EQ(count_differing(std::vector<double>{a.norm2}, {b.norm2}), 0U) << a.norm2 << " and " << b.norm2;
  EXPECT_EQ(a.first_bad, b.first_bad);
}

class GradNorm : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};

  template <class T>
  void check(const std::vector<std::vector<T>>& values) {
    const auto body = [&] { return run(session(), values); };
    expect_equal(body(), run(reference_, values));
    under_thread_orders(session(), body, expect_equal);
  }
};

TEST_P(GradNorm, EqualsTheReferenceBitForBit) {
  for (const std::size_t count : {0, 1, 31, 32, 33, 255, 256, 257, 16383, 16384, 16385, 100003})
    check<float>({normal_values<float>(count, 1)});
  check<bf16>({normal_values<bf16>(5003, 1), normal_values<bf16>(5003, 2)});
  check<f16>({normal_values<f16>(5003, 1), normal_values<f16>(5003, 2), normal_values<f16>(5003, 3)});
}

TEST_P(GradNorm, MatchesAPlainSumInDouble) {
  const std::size_t count = 100003;
  const std::vector<float> a = normal_values<float>(count, 1), b = normal_values<float>(count, 2);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += std::pow(static_cast<double>(a[i] + b[i]), 2);
  const StepReport report = run<float>(session(), {a, b});
  EXPECT_NEAR(report.norm2, sum, 1e-12 * sum);  // 100,003 roundings of a double: 1e-16 times their number at most
  EXPECT_EQ(report.first_bad, -1);
  EXPECT_EQ(report.loss_sum, 12.5);
  EXPECT_EQ(report.weight_sum, 4.0);
  EXPECT_EQ(report.stop, 1);
}

TEST_P(GradNorm, SourcesAreAddedAsATree) {
  const std::size_t count = 700;
  for (std::size_t sources = 1; sources <= max_grad_sources; ++sources) {
    std::vector<std::vector<float>> values;
    for (std::size_t k = 0; k < sources; ++k)
      values.push_back(normal_values<float>(count, static_cast<std::uint32_t>(k + 1)));
    std::vector<float> sums;
    for (std::size_t i = 0; i < count; ++i)
      sums.push_back(tree_of(0, sources, [&](std::size_t k) { return values[k][i]; }));
    expect_equal(run(session(), values), run<float>(session(), {sums}));
  }
}

TEST_P(GradNorm, TheNormIsTheTreeOverTheLeaves) {
  for (const std::size_t count :
       {1, 2, 3, 5, 31, 32, 33, 63, 64, 100, 1023, 1024, 1025, 2047, 5000, 8191, 8192, 8193, 8225, 70001}) {
    std::vector<double> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::abs(normal_at(7, RngStream::synthetic, 1, i));
    const Array<double> sums(session(), values);
    const Array<StepReport> report(session(), 1);
    kernels::grad_norm(exec(), {.sums = sums.data(),
                                .sum_count = static_cast<std::uint32_t>(count),
                                .bad = nullptr,
                                .bad_count = 0,
                                .loss = nullptr,
                                .report = report.data()});
    const StepReport result = report.host()[0];
    EXPECT_EQ(result.norm2, tree_of(0, count, [&](std::size_t i) { return values[i]; })) << count;
    EXPECT_EQ(result.first_bad, -1);
    EXPECT_EQ(result.loss_sum, 0);
  }
}

TEST_P(GradNorm, RanksThatOwnLeavesInTurnGatherTheBitsOfOne) {
  const std::size_t count = 5 * norm_leaf_elements + 777;
  const std::vector<float> values = normal_values<float>(count, 1);
  const std::vector<NormLeaf> all = leaves_of(count);
  const StepReport whole = run<float>(session(), {values});

  std::vector<double> gathered(all.size(), -1.0);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    std::vector<NormLeaf> own;
    std::vector<float> shard;  // this rank's leaves alone, one behind the other
    for (std::size_t j = rank; j < all.size(); j += 2) {
      own.push_back(all[j]);
      own.back().shard_begin = shard.size();
      shard.insert(shard.end(), values.begin() + static_cast<std::ptrdiff_t>(all[j].begin),
                   values.begin() + static_cast<std::ptrdiff_t>(all[j].begin + all[j].count));
    }
    const Sources<float> sources(session(), {shard}, Extent::shard);
    const Array<NormLeaf> leaves(session(), own);
    const Array<double> sums(session(), gathered);
    const Array<std::int64_t> bad(session(), own.size());
    kernels::grad_leaf_sums(exec(), {.grad = sources.grad,
                                     .leaves = leaves.data(),
                                     .leaf_count = static_cast<std::uint32_t>(own.size()),
                                     .sums = sums.data(),
                                     .bad = bad.data()});
    gathered = sums.host();  // what the other rank wrote is left alone
  }
  const Array<double> sums(session(), gathered);
  const Array<StepReport> report(session(), 1);
  kernels::grad_norm(
      exec(), {.sums = sums.data(), .sum_count = static_cast<std::uint32_t>(all.size()), .report = report.data()});

  expect_equal(report.host()[0], whole);
}

TEST_P(GradNorm, HugeAndTinyValuesNeitherOverflowNorVanish) {
  std::vector<float> values(1000, std::numeric_limits<float>::max());
  const double max = static_cast<double>(std::numeric_limits<float>::max());
  StepReport report = run<float>(session(), {values});
  // 1000 equal terms in double: at most 1000 roundings of 2^-53.
  EXPECT_NEAR(report.norm2 / (1000 * max * max), 1, 1e-12);
  EXPECT_EQ(report.first_bad, -1);
  values.assign(1000, 1e-30F);
  report = run<float>(session(), {values});
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
      const StepReport report = run<float>(session(), {values});
      EXPECT_EQ(report.first_bad, static_cast<std::int64_t>(first));
      EXPECT_FALSE(std::isfinite(report.norm2));
    }
  }
}

TEST_P(GradNorm, TheFirstBadElementOfAShardHasItsFlatIndex) {
  std::vector<float> shard(300, 1.0F);
  shard[290] = shard[270] = std::numeric_limits<float>::infinity();
  const Sources<float> sources(session(), {shard}, Extent::shard);
  const std::vector<NormLeaf> leaves = {{.begin = 70000, .shard_begin = 0, .count = 200, .index = 0},
                                        {.begin = 90000, .shard_begin = 200, .count = 100, .index = 1}};
  EXPECT_EQ(report_of(session(), sources.grad, leaves).first_bad, 90070);
}

TEST_P(GradNorm, TheOrderOfLeavesDoesNotDecideWhatIsFirst) {
  std::vector<float> values(2 * norm_leaf_elements, 1.0F);
  values[5] = values[20000] = std::numeric_limits<float>::quiet_NaN();
  std::vector<NormLeaf> leaves = leaves_of(values.size());
  std::reverse(leaves.begin(), leaves.end());
  EXPECT_EQ(report_of(session(), Sources<float>(session(), {values}).grad, leaves).first_bad, 5);
}

TEST_P(GradNorm, ASumThatOverflowsIsBadThoughItsSourcesAreNot) {
  std::vector<float> values(40, 1.0F);
  values[39] = 3e38F;
  EXPECT_EQ(run<float>(session(), {values, values}).first_bad, 39);
}

TEST_P(GradNorm, ThreadsDoNotChangeTheResult) {
  const std::vector<std::vector<float>> values = {normal_values<float>(100000, 1)};
  const Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, values), run(one, values));
}

TEST_P(GradNorm, RefusesWhatIsMissing) {
  StepReport report;
  EXPECT_THROW(kernels::grad_norm(exec(), {}), Error);
  EXPECT_THROW(kernels::grad_norm(exec(), {.sum_count = 1, .report = &report}), Error);
  EXPECT_THROW(kernels::grad_norm(exec(), {.bad_count = 1, .report = &report}), Error);
  const double sum = 0;
  EXPECT_THROW(kernels::grad_norm(exec(), {.sums = &sum, .sum_count = max_norm_leaves + 1, .report = &report}), Error);
  EXPECT_THROW(kernels::grad_leaf_sums(exec(), {.leaf_count = 1}), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, GradNorm, all_backends(), backend_name);

}  // namespace
}  // namespace lockstep::testing
