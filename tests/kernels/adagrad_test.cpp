#include "kernels/adagrad/adagrad.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/adagrad/adagrad_rule.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::size_t count = 0;
  int sources = 1;
  DType copy_dtype = DType::bf16;
  std::int64_t applied = 5;
  std::int32_t skip = 0;
};

struct Result {
  std::vector<float> master, sum;
  std::vector<std::uint16_t> copy;  ///< bits
  DType copy_dtype = DType::bf16;
};

const std::vector<GroupStep> groups = {{0.1, 0, 0, 0, 0.01, 1, 1}, {0.05, 0, 0, 0, 0.0, 1, 1}};

std::vector<float> squares(std::size_t count) {
  std::vector<float> values = normal_values<float>(count, 2);
  for (float& value : values) value *= value;
  return values;
}

/// Tiles of an odd length, so that most of them start on no vector.
Result run(const Session& session, const Case& c) {
  Array<float> master(session, normal_values<float>(c.count, 1)), sum(session, squares(c.count));
  Array<std::uint16_t> copy(session, std::vector<std::uint16_t>(c.count, 0xABCD));
  std::vector<float> gradient = normal_values<float>(c.count, 3);
  for (std::size_t i = 0; i < c.count; i += 7) gradient[i] = 0;
  const Array<float> g0(session, gradient), g1(session, normal_values<float>(c.count, 4)),
      g2(session, normal_values<float>(c.count, 5));
  std::vector<Tile> tile_list;
  for (std::size_t i = 0; i < c.count; i += 1001)
    tile_list.push_back(unsharded_tile(i, static_cast<std::uint32_t>(std::min<std::size_t>(1001, c.count - i)),
                                       static_cast<std::uint32_t>(i / 1001 % 2)));
  StepState state_value;
  state_value.grad_factor = 0.25;
  state_value.applied = c.applied;
  state_value.skip = c.skip;
  const Array<Tile> tiles(session, tile_list);
  const Array<GroupStep> steps(session, groups);
  const Array<StepState> state(session, std::vector<StepState>{state_value});
  AdagradArgs args;
  args.master = master.data();
  args.sum = sum.data();
  args.initial = 0.5F;
  args.param16 = copy.data();
  args.param16_dtype = c.copy_dtype;
  args.grad = {{g0.data(), g1.data(), g2.data()}, c.sources, DType::f32};
  args.tiles = tiles.data();
  args.tile_count = static_cast<std::uint32_t>(tiles.size());
  args.groups = steps.data();
  args.state = state.data();
  kernels::adagrad(session.exec(), args);
  return {master.host(), sum.host(), copy.host(), c.copy_dtype};
}

void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(count_differing(a.master, b.master), 0U);
  EXPECT_EQ(count_differing(a.sum, b.sum), 0U);
  EXPECT_EQ(count_differing(a.copy_dtype, a.copy, b.copy), 0U);
}

class Adagrad : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};
};

TEST_P(Adagrad, EqualsTheReferenceBitForBit) {
  std::vector<Case> cases;
  for (const std::size_t count : {0, 1, 31, 32, 33, 257, 20003}) cases.push_back({count});
  cases.push_back({5003, 3, DType::f16});
  cases.push_back({5003, 2});
  cases.push_back({5003, 1, DType::bf16, 1});
  for (const Case& c : cases) {
    SCOPED_TRACE(c.count);
    const auto body = [&] { return run(session(), c); };
    expect_equal(body(), run(reference_, c));
    under_thread_orders(session(), body, expect_equal);
  }
}

TEST_P(Adagrad, ThreadsDoNotChangeTheResult) {
  Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, {40003, 2}), run(one, {40003, 2}));
}

TEST_P(Adagrad, AShardLiesAtItsOwnIndex) {
  constexpr std::size_t count = 3000, first = 1000, size = 700;
  const std::vector<float> p = normal_values<float>(count, 1), m = squares(count), g = normal_values<float>(count, 3);
  const auto piece = [&](const std::vector<float>& values) {
    return std::vector<float>(values.begin() + first, values.begin() + first + size);
  };
  const Array<GroupStep> steps(session(), groups);
  const Array<StepState> state(session(), {StepState{.applied = 5}});
  const Array<float> whole_p(session(), p), whole_m(session(), m), grad(session(), g);
  const Array<float> shard_p(session(), piece(p)), shard_m(session(), piece(m));
  const Array<bf16> whole_copy(session(), count), copy(session(), count);
  const auto update = [&](const Array<float>& master, const Array<float>& moment, const Array<bf16>& to, Tile tile) {
    const Array<Tile> tiles(session(), std::vector<Tile>{tile});
    AdagradArgs args;
    args.master = master.data();
    args.sum = moment.data();
    args.param16 = to.data();
    args.grad = {.source = {grad.data()}};
    args.tiles = tiles.data();
    args.tile_count = 1;
    args.groups = steps.data();
    args.state = state.data();
    kernels::adagrad(exec(), args);
    session().device().synchronize(exec().stream);
  };

  update(whole_p, whole_m, whole_copy, unsharded_tile(first, size, 0));
  update(shard_p, shard_m, copy, {.begin = first, .shard_begin = 0, .count = size, .group = 0});

  EXPECT_EQ(count_differing(shard_p.host(), piece(whole_p.host())), 0U);
  EXPECT_EQ(count_differing(shard_m.host(), piece(whole_m.host())), 0U);
  EXPECT_EQ(count_differing(copy.host(), whole_copy.host()), 0U);
  EXPECT_NE(count_differing(shard_p.host(), piece(p)), 0U);
}

TEST_P(Adagrad, ChangesNothingInASkippedStep) {
  Case c = {300};
  c.skip = 1;
  const Result result = run(session(), c);
  EXPECT_EQ(result.master, normal_values<float>(300, 1));
  EXPECT_EQ(result.sum, squares(300));
  EXPECT_EQ(result.copy, std::vector<std::uint16_t>(300, 0xABCD));
}

TEST_P(Adagrad, TheCopyIsTheRoundedParameter) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Result result = run(session(), {300, 1, dtype});
    for (std::size_t i = 0; i < 300; ++i)
      EXPECT_EQ(result.copy[i], dtype == DType::bf16 ? bf16(result.master[i]).bits : f16(result.master[i]).bits);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Adagrad, all_backends(), backend_name);

TEST(AdagradRule, TheFirstStepIsTheRateWithoutAnInitialSum) {
  const GroupStep step = {0.25, 0, 0, 0, 0, 1, 1};
  double p = 1, sum = 77;  // what is in the buffer before the first update is ignored
  adagrad_element(p, sum, -3.0, adagrad_scalars<double>(step, 1.0, 0.0, 0.0, true));
  EXPECT_EQ(sum, 9);
  EXPECT_EQ(p, 1.25);
  adagrad_element(p, sum, 4.0, adagrad_scalars<double>(step, 1.0, 0.0, 0.0, false));
  EXPECT_EQ(sum, 25);
  EXPECT_EQ(p, 1.25 - 0.25 * 4 / 5);
}

TEST(AdagradRule, DecayIsAddedToTheGradient) {
  const GroupStep step = {0.5, 0, 0, 0, 0.5, 1, 1};
  double p = 2, sum = 0;
  adagrad_element(p, sum, 4.0, adagrad_scalars<double>(step, 0.5, 1.0, 16.0, true));  // g = 2 + 1
  EXPECT_EQ(sum, 25);
  EXPECT_EQ(p, 2 - 0.5 * 3 / 6);
}

}  // namespace
}  // namespace lockstep::testing
