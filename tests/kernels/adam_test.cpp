#include "kernels/adam/adam.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "kernels/adam/adam_rule.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::size_t count = 0;
  int sources = 1;
  DType grad = DType::f32;
  bool copy = false;
  DType copy_dtype = DType::bf16;
  bool decoupled = true;
};

struct Result {
  std::vector<float> master, m, v;
  std::vector<std::uint16_t> copy;  ///< bits
  DType copy_dtype = DType::bf16;
};

/// Two groups: the first ends at a third of the space, where an odd gap of padding follows.
std::vector<Tile> tiles_of(std::size_t count) {
  std::vector<Tile> tiles;
  const auto add = [&](std::size_t begin, std::size_t end, std::uint32_t group) {
    for (std::size_t i = begin; i < end; i += tile_elements)
      tiles.push_back(
          unsharded_tile(i, static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, end - i)), group));
  };
  const std::size_t third = count / 3, gap = std::min<std::size_t>(count - third, 5);
  add(0, third, 0);
  add(third + gap, count, 1);
  return tiles;
}

const std::vector<GroupStep> groups = {{1e-3, 0.9, 0.999, 0, 0.1, 1 - 0.9, 1 - 0.999},
                                       {3e-2, 0.8, 0.95, 0, 0.0, 1 - 0.8 * 0.8, 1 - 0.95 * 0.95}};

template <class T>
Array<T> gradient_array(const Session& session, std::size_t count, std::uint32_t lane) {
  std::vector<T> values = normal_values<T>(count, lane, 64);
  const float special[] = {0.0F,
                           -0.0F,
                           1e30F,
                           -1e-30F,
                           1e-40F,
                           std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::quiet_NaN()};
  for (std::size_t i = 0; i < std::size(special) && 2 * i + 20 < count; ++i) values[2 * i + 20] = T(special[i]);
  return Array<T>(session, values);
}

template <class T>
Result run_typed(const Session& session, const Case& c, const StepState& state_value) {
  Array<float> master(session, normal_values<float>(c.count, 1)), m(session, normal_values<float>(c.count, 2, 0.1));
  std::vector<float> squares = normal_values<float>(c.count, 3, 0.1);
  for (float& x : squares) x *= x;
  Array<float> v(session, squares);
  Array<std::uint16_t> copy(session, std::vector<std::uint16_t>(c.count, 0xABCD));
  std::vector<std::unique_ptr<Array<T>>> sources;
  AdamArgs args;
  for (int k = 0; k < c.sources; ++k) {
    sources.push_back(
        std::make_unique<Array<T>>(gradient_array<T>(session, c.count, static_cast<std::uint32_t>(10 + k))));
    args.grad.source[k] = sources.back()->data();
  }
  const Array<Tile> tiles(session, tiles_of(c.count));
  const Array<GroupStep> steps(session, groups);
  const Array<StepState> state(session, std::vector<StepState>{state_value});
  args.grad.count = c.sources;
  args.grad.dtype = c.grad;
  args.master = master.data();
  args.m = m.data();
  args.v = v.data();
  args.param16 = c.copy ? copy.data() : nullptr;
  args.param16_dtype = c.copy_dtype;
  args.tiles = tiles.data();
  args.tile_count = static_cast<std::uint32_t>(tiles.size());
  args.groups = steps.data();
  args.state = state.data();
  args.decoupled = c.decoupled ? 1 : 0;
  kernels::adam(session.exec(), args);
  return {master.host(), m.host(), v.host(), copy.host(), c.copy_dtype};
}

Result run(const Session& session, const Case& c, const StepState& state) {
  if (c.grad == DType::bf16) return run_typed<bf16>(session, c, state);
  if (c.grad == DType::f16) return run_typed<f16>(session, c, state);
  return run_typed<float>(session, c, state);
}

void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(count_differing(a.master, b.master), 0U);
  EXPECT_EQ(count_differing(a.m, b.m), 0U);
  EXPECT_EQ(count_differing(a.v, b.v), 0U);
  EXPECT_EQ(count_differing(a.copy_dtype, a.copy, b.copy), 0U);
}

StepState scaled_state() {
  StepState state;
  state.grad_factor = 1.0 / 96;
  return state;
}

class Adam : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};
};

std::vector<std::size_t> sizes(const Session& session) {
  if (session.emulated()) return {0, 1, 31, 33, 257, 40003};
  return {0, 1, 31, 32, 33, 257, 100003};
}

TEST_P(Adam, EqualsTheReferenceBitForBit) {
  std::vector<Case> cases;
  for (const std::size_t count : sizes(session())) cases.push_back({count});
  const std::size_t some = 5003;
  for (int sources = 2; sources <= max_grad_sources; ++sources) cases.push_back({some, sources});
  for (const DType grad : {DType::bf16, DType::f16})
    for (const int sources : {1, 3}) cases.push_back({some, sources, grad, true, grad});
  cases.push_back({some, 1, DType::f32, true, DType::bf16});
  cases.push_back({some, 1, DType::f32, true, DType::f16});
  cases.push_back({some, 1, DType::f32, false, DType::bf16, false});
  cases.push_back({some, 2, DType::bf16, true, DType::bf16, false});
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.count << " elements, " << c.sources << " sources of " << to_string(c.grad));
    const Result expected = run(reference_, c, scaled_state());
    const auto body = [&] { return run(session(), c, scaled_state()); };
    expect_equal(body(), expected);
    under_thread_orders(session(), body, expect_equal);
  }
}

TEST_P(Adam, ThreadsDoNotChangeTheResult) {
  const Case c = {100003, 2};
  Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, c, scaled_state()), run(one, c, scaled_state()));
}

/// Two ranks, each with every second tile of 96 elements: their shards hold masters and moments of these alone, one
/// behind the other; of the gradient and the copy each has all. `sharded`: of the gradient too, and all of the master.
void expect_shards_to_join(const Session& session, bool sharded_gradient) {
  constexpr std::size_t count = 100 * 96, half = count / 2;
  const std::vector<float> p = normal_values<float>(count, 1), m = normal_values<float>(count, 2, 0.1), v(count, 0.25F),
                           g = normal_values<float>(count, 4);
  const Array<GroupStep> steps(session, groups);
  const Array<StepState> state(session, std::vector<StepState>{scaled_state()});
  const auto update = [&](AdamArgs args, const std::vector<Tile>& list) {
    const Array<Tile> tiles(session, list);
    args.tiles = tiles.data();
    args.tile_count = static_cast<std::uint32_t>(list.size());
    args.groups = steps.data();
    args.state = state.data();
    kernels::adam(session.exec(), args);
    session.device().synchronize(session.exec().stream);
  };

  std::vector<Tile> all, own[2];
  for (std::size_t t = 0; t < 100; ++t) {
    all.push_back(unsharded_tile(96 * t, 96, static_cast<std::uint32_t>(t / 50)));
    own[t % 2].push_back({96 * t, 96 * (t / 2), 96, static_cast<std::uint32_t>(t / 50)});
  }
  const Array<float> whole_p(session, p), whole_m(session, m), whole_v(session, v), whole_g(session, g);
  const Array<bf16> whole_copy(session, count), copy(session, count);
  update({.master = whole_p.data(),
          .m = whole_m.data(),
          .v = whole_v.data(),
          .param16 = whole_copy.data(),
          .grad = {.source = {whole_g.data()}}},
         all);
  std::vector<float> joined_p(count), joined_m(count), joined_v(count);
  const Array<float> shared_p(session, p);
  for (std::size_t r = 0; r < 2; ++r) {
    const auto shard_of = [&](const std::vector<float>& values) {
      std::vector<float> result;
      for (const Tile& tile : own[r])
        result.insert(result.end(), values.begin() + static_cast<std::ptrdiff_t>(tile.begin),
                      values.begin() + static_cast<std::ptrdiff_t>(tile.begin + tile.count));
      return result;
    };
    const Array<float> shard_p(session, shard_of(p)), shard_m(session, shard_of(m)), shard_v(session, shard_of(v)),
        shard_g(session, shard_of(g));
    ASSERT_EQ(shard_m.size(), half);
    AdamArgs args{.master = shard_p.data(),
                  .m = shard_m.data(),
                  .v = shard_v.data(),
                  .param16 = copy.data(),
                  .grad = {.source = {whole_g.data()}}};
    if (sharded_gradient) {
      args.grad.source[0] = shard_g.data();
      args.grad.extent = Extent::shard;
      args.master = shared_p.data();
      args.master_extent = Extent::full;
    }
    update(args, own[r]);
    const std::vector<float> new_p = sharded_gradient ? shared_p.host() : shard_p.host(), new_m = shard_m.host(),
                             new_v = shard_v.host();
    for (const Tile& tile : own[r])
      for (std::uint32_t k = 0; k < tile.count; ++k) {
        joined_p[tile.begin + k] = new_p[(sharded_gradient ? tile.begin : tile.shard_begin) + k];
        joined_m[tile.begin + k] = new_m[tile.shard_begin + k];
        joined_v[tile.begin + k] = new_v[tile.shard_begin + k];
      }
  }

  EXPECT_EQ(count_differing(joined_p, whole_p.host()), 0U);
  EXPECT_EQ(count_differing(joined_m, whole_m.host()), 0U);
  EXPECT_EQ(count_differing(joined_v, whole_v.host()), 0U);
  EXPECT_EQ(count_differing(copy.host(), whole_copy.host()), 0U);
  EXPECT_NE(count_differing(joined_p, p), 0U);
}

TEST_P(Adam, ShardsOfTwoRanksJoinToTheWholeUpdate) { expect_shards_to_join(session(), false); }
TEST_P(Adam, AShardedGradientUpdatesAWholeMaster) { expect_shards_to_join(session(), true); }

/// Tiles of every length around a vector and a block's piece, whose shards begin at any index; all of it `rounds`
/// times.
std::vector<Tile> tiles_of_any_length(int rounds) {
  constexpr std::uint32_t lengths[] = {1, 2, 3, 4, 5, 7, 8, 1023, 1024, 1025, 4099, 6, 16};
  std::vector<Tile> list;
  std::uint64_t begin = 0, shard = 3;
  for (int round = 0; round < rounds; ++round)
    for (const std::uint32_t length : lengths) {
      list.push_back({begin, shard, length, static_cast<std::uint32_t>(list.size() % 2)});
      begin += (length + 3) / 4 * 4;
      shard += length;
    }
  return list;
}

Result update_of(const Session& session, const std::vector<Tile>& list, DType copy_dtype = DType::bf16) {
  const std::uint64_t begin = list.back().begin + list.back().count,
                      shard = list.back().shard_begin + list.back().count;
  const Array<float> p(session, normal_values<float>(begin, 1)), m(session, normal_values<float>(shard, 2, 0.1));
  const Array<float> v(session, std::vector<float>(shard, 0.25F)), g(session, normal_values<float>(begin, 4));
  const Array<std::uint16_t> copy(session, begin);
  const Array<GroupStep> steps(session, groups);
  const Array<StepState> state(session, std::vector<StepState>{scaled_state()});
  const Array<Tile> tiles(session, list);
  kernels::adam(session.exec(), {.master = p.data(),
                                 .master_extent = Extent::full,
                                 .m = m.data(),
                                 .v = v.data(),
                                 .param16 = copy.data(),
                                 .param16_dtype = copy_dtype,
                                 .grad = {.source = {g.data()}},
                                 .tiles = tiles.data(),
                                 .tile_count = static_cast<std::uint32_t>(list.size()),
                                 .groups = steps.data(),
                                 .state = state.data()});
  return Result{p.host(), m.host(), v.host(), copy.host(), copy_dtype};
}

TEST_P(Adam, TilesOfAnyLengthAndShardsAtAnyIndex) {
  const std::vector<Tile> list = tiles_of_any_length(1);
  const auto body = [&] { return update_of(session(), list); };
  expect_equal(body(), update_of(reference_, list));
  under_thread_orders(session(), body, expect_equal);
}

/// From some number of tiles on, CPUs write the copy past their caches, by whole cache lines where it lies on them.
TEST_P(Adam, ManyTilesAndTheirCopyToo) {
  const std::vector<Tile> list = tiles_of_any_length(session().emulated() ? 3 : 20);
  for (const DType dtype : {DType::bf16, DType::f16})
    expect_equal(update_of(session(), list, dtype), update_of(reference_, list, dtype));
}

TEST_P(Adam, LeavesPaddingAlone) {
  const Case c = {300, 1, DType::f32, true};
  const Result result = run(session(), c, scaled_state());
  const std::vector<float> before = normal_values<float>(c.count, 1);
  for (std::size_t i = 100; i < 105; ++i) {
    EXPECT_EQ(result.master[i], before[i]);
    EXPECT_EQ(result.copy[i], 0xABCD);
  }
  EXPECT_NE(result.master[99], before[99]);
  EXPECT_NE(result.master[105], before[105]);
}

TEST_P(Adam, ChangesNothingInASkippedOrHaltedStep) {
  const Case c = {300, 1, DType::f32, true};
  StepState skip = scaled_state(), halt = scaled_state();
  skip.skip = 1;
  halt.halt = Halt::desync;
  for (const StepState& state : {skip, halt}) {
    const Result result = run(session(), c, state);
    EXPECT_EQ(result.master, normal_values<float>(c.count, 1));
    EXPECT_EQ(result.m, normal_values<float>(c.count, 2, 0.1));
    EXPECT_EQ(result.copy, std::vector<std::uint16_t>(c.count, 0xABCD));
  }
}

TEST_P(Adam, RefusesWhatItCannotRead) {
  AdamArgs args;
  args.tile_count = 1;
  EXPECT_THROW(kernels::adam(exec(), args), Error);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Adam, all_backends(), backend_name);

/// The formula as the header writes it, in double.
void update_in_double(double& p, double& m, double& v, double g, const GroupStep& s, double eps, bool decoupled) {
  if (!decoupled) g += s.weight_decay * p;
  m = s.beta1 * m + (1 - s.beta1) * g;
  v = s.beta2 * v + (1 - s.beta2) * g * g;
  double update = m / s.correction1 / (std::sqrt(v / s.correction2) + eps);
  if (decoupled) update += s.weight_decay * p;
  p -= s.lr * update;
}

TEST(AdamRule, FollowsTheFormulaInDoubleForTwentySteps) {
  for (const bool decoupled : {false, true}) {
    double p = 0.9, m = 0, v = 0, rule_p = p, rule_m = 0, rule_v = 0;
    float float_p = 0.9F, float_m = 0, float_v = 0;
    for (int t = 1; t <= 20; ++t) {
      const GroupStep step = {0.01, 0.9, 0.999, 0, 0.1, 1 - std::pow(0.9, t), 1 - std::pow(0.999, t)};
      const double g = normal_at(7, RngStream::synthetic, 9, static_cast<std::uint64_t>(t));
      update_in_double(p, m, v, g / 8, step, 1e-8, decoupled);
      adam_element(rule_p, rule_m, rule_v, g, adam_scalars<double>(step, 1.0 / 8, 1e-8, decoupled));
      adam_element(float_p, float_m, float_v, static_cast<float>(g),
                   adam_scalars<float>(step, 1.0 / 8, 1e-8, decoupled));
      // Twenty steps with about ten roundings each, of double and of float.
      EXPECT_NEAR(rule_p, p, 1e-14);
      EXPECT_NEAR(rule_v, v, 1e-15);
      EXPECT_NEAR(static_cast<double>(float_p), p, 1e-6);
    }
  }
}

TEST(AdamRule, FirstStepMovesByTheLearningRate) {
  // With m = v = 0 and full correction the first update is lr g / (|g| + eps).
  const GroupStep step = {0.25, 0.9, 0.999, 0, 0, 1 - 0.9, 1 - 0.999};
  double p = 1, m = 0, v = 0;
  adam_element(p, m, v, -3.0, adam_scalars<double>(step, 1.0, 0.0, true));
  EXPECT_NEAR(p, 1.25, 1e-12);
}

}  // namespace
}  // namespace lockstep::testing
