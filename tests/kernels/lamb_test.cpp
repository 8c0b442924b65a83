#include "kernels/lamb/lamb.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::vector<std::size_t> tensors;  ///< elements of each
  int sources = 1;
  DType copy_dtype = DType::bf16;
  std::int32_t skip = 0;
  bool odd = false;  ///< tensors begin on no vector
};

struct Result {
  std::vector<float> master, m, v;
  std::vector<std::uint16_t> copy;  ///< bits
  DType copy_dtype = DType::bf16;
};

const std::vector<GroupStep> groups = {{0.1, 0.9, 0.999, 0, 0.01, 1 - 0.9, 1 - 0.999},
                                       {0.05, 0.8, 0.95, 0, 0.0, 1 - 0.8, 1 - 0.95}};

struct Space {
  std::vector<Tile> tiles;
  std::vector<TileRun> tensors;
  std::size_t elements = 0;
};

/// Tensors one after the other, each from the next multiple of 64 on, of one group and the other in turn.
Space space_of(const Case& c) {
  Space space;
  for (const std::size_t count : c.tensors) {
    const auto group = static_cast<std::uint32_t>(space.tensors.size() % 2);
    TileRun run{static_cast<std::uint32_t>(space.tiles.size()), 0};
    for (std::size_t i = 0; i < count; i += tile_elements, ++run.count)
      space.tiles.push_back(unsharded_tile(
          space.elements + i, static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, count - i)), group));
    space.tensors.push_back(run);
    space.elements += (count + 63) / 64 * 64 + (c.odd ? 1 : 0);
  }
  return space;
}

std::vector<float> squares(std::size_t count) {
  std::vector<float> values = normal_values<float>(count, 2);
  for (float& value : values) value *= value;
  return values;
}

Result run(const Session& session, const Case& c) {
  const Space space = space_of(c);
  const std::size_t count = space.elements;
  Array<float> master(session, normal_values<float>(count, 1)), m(session, normal_values<float>(count, 6, 0.1)),
      v(session, squares(count));
  Array<std::uint16_t> copy(session, std::vector<std::uint16_t>(count, 0xABCD));
  const Array<float> g0(session, normal_values<float>(count, 3)), g1(session, normal_values<float>(count, 4)),
      g2(session, normal_values<float>(count, 5));
  StepState state_value;
  state_value.grad_factor = 0.25;
  state_value.skip = c.skip;
  const Array<Tile> tiles(session, space.tiles);
  const Array<TileRun> tensors(session, space.tensors);
  const Array<LambSquares> sums(session, space.tiles.size());
  const Array<float> steps(session, space.tiles.size());
  const Array<GroupStep> group_steps(session, groups);
  const Array<StepState> state(session, std::vector<StepState>{state_value});
  LambArgs args;
  args.master = master.data();
  args.m = m.data();
  args.v = v.data();
  args.param16 = copy.data();
  args.param16_dtype = c.copy_dtype;
  args.grad = {{g0.data(), g1.data(), g2.data()}, c.sources, DType::f32};
  args.tiles = tiles.data();
  args.tile_count = static_cast<std::uint32_t>(tiles.size());
  args.tensors = tensors.data();
  args.tensor_count = static_cast<std::uint32_t>(tensors.size());
  args.squares = sums.data();
  args.steps = steps.data();
  args.groups = group_steps.data();
  args.state = state.data();
  kernels::lamb(session.exec(), args);
  return {master.host(), m.host(), v.host(), copy.host(), c.copy_dtype};
}

void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(count_differing(a.master, b.master), 0U);
  EXPECT_EQ(count_differing(a.m, b.m), 0U);
  EXPECT_EQ(count_differing(a.v, b.v), 0U);
  EXPECT_EQ(count_differing(a.copy_dtype, a.copy, b.copy), 0U);
}

class Lamb : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};
};

TEST_P(Lamb, EqualsTheReferenceBitForBit) {
  for (const Case& c : std::vector<Case>{{{1}},
                                         {{31, 32, 33, 257}},
                                         {{tile_elements, 2 * tile_elements + 5}},
                                         {{700, 1003}, 3, DType::f16},
                                         {{700, 1003}, 2, DType::bf16, 0, true}}) {
    SCOPED_TRACE(::testing::Message() << c.tensors.front() << " elements, " << c.sources << " sources");
    const auto body = [&] { return run(session(), c); };
    expect_equal(body(), run(reference_, c));
    under_thread_orders(session(), body, expect_equal);
  }
}

TEST_P(Lamb, ThreadsDoNotChangeTheResult) {
  const Case c = {{50003, 300, 20000}, 2};
  Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, c), run(one, c));
}

/// More tiles than lanes, few elements in each.
TEST_P(Lamb, ATensorOfManyTilesIsAddedInTheSameOrder) {
  constexpr std::uint32_t tile_count = lamb_lanes + 77, each = 5;
  const auto updated = [&](const Session& session) {
    std::vector<Tile> list;
    for (std::uint32_t t = 0; t < tile_count; ++t) list.push_back(unsharded_tile(std::uint64_t{8} * t, each, 0));
    const Array<float> master(session, normal_values<float>(8 * tile_count, 1)), m(session, 8 * tile_count),
        v(session, 8 * tile_count), grad(session, normal_values<float>(8 * tile_count, 3)), steps(session, tile_count);
    const Array<Tile> tiles(session, list);
    const Array<TileRun> tensors(session, {{.first = 0, .count = tile_count}});
    const Array<LambSquares> sums(session, tile_count);
    const Array<GroupStep> group_steps(session, groups);
    const Array<StepState> state(session, {StepState{}});
    LambArgs args;
    args.master = master.data();
    args.m = m.data();
    args.v = v.data();
    args.grad = {.source = {grad.data()}};
    args.tiles = tiles.data();
    args.tile_count = tile_count;
    args.tensors = tensors.data();
    args.tensor_count = 1;
    args.squares = sums.data();
    args.steps = steps.data();
    args.groups = group_steps.data();
    args.state = state.data();
    kernels::lamb(session.exec(), args);
    return std::pair{master.host(), steps.host()};
  };
  const auto [master, steps] = updated(session());
  const auto [expected, expected_steps] = updated(reference_);
  EXPECT_EQ(count_differing(master, expected), 0U);
  EXPECT_EQ(count_differing(steps, expected_steps), 0U);
  EXPECT_GT(steps.front(), 0);
}

TEST_P(Lamb, ChangesNothingInASkippedStep) {
  Case c = {{320}};
  c.skip = 1;
  const Result result = run(session(), c);
  EXPECT_EQ(result.master, normal_values<float>(320, 1));
  EXPECT_EQ(result.m, normal_values<float>(320, 6, 0.1));
  EXPECT_EQ(result.v, squares(320));
  EXPECT_EQ(result.copy, std::vector<std::uint16_t>(320, 0xABCD));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Lamb, all_backends(), backend_name);

TEST(LambRule, TheRatioOfTheNormsIsKeptBetweenItsBounds) {
  const GroupStep step = {0.5, 0.9, 0.999, 0, 0, 1, 1};
  EXPECT_EQ(lamb_step(9, 4, step, 0.01, 10), 0.5 * 3 / 2);
  EXPECT_EQ(lamb_step(9, 4, step, 0.01, 1.25), 0.5 * 1.25);
  EXPECT_EQ(lamb_step(9, 4, step, 2, 10), 0.5 * 2);
  EXPECT_EQ(lamb_step(0, 4, step, 2, 10), 0.5) << "without a norm there is no ratio, and no bound";
  EXPECT_EQ(lamb_step(9, 0, step, 2, 10), 0.5);
}

TEST(LambRule, TheStepIsCorrectedForMomentsThatStartAtZero) {
  const GroupStep step = {0.5, 0.9, 0.999, 0, 0, 0.25, 0.0625};
  EXPECT_EQ(lamb_step(1, 1, step, 0.01, 10), 0.5 * 0.25 / 0.25);
}

TEST(LambRule, MissingScratchIsRefused) {
  std::vector<float> p(4), m(4), v(4), g(4);
  const Tile tile = unsharded_tile(0, 4, 0);
  const StepState state;
  LambArgs args;
  args.master = p.data();
  args.m = m.data();
  args.v = v.data();
  args.grad.source[0] = g.data();
  args.tiles = &tile;
  args.tile_count = 1;
  args.groups = groups.data();
  args.state = &state;
  Exec exec;
  exec.table = &kernels::cpu_table();
  EXPECT_THROW(kernels::lamb(exec, args), Error);
}

}  // namespace
}  // namespace lockstep::testing
