#include "kernels/sgd/sgd.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "kernels/sgd/sgd_rule.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

struct Case {
  std::size_t count = 0;
  int sources = 1;
  DType copy_dtype = DType::bf16;
  bool nesterov = false;
  float dampening = 0;
  std::int64_t applied = 5;
  std::int32_t skip = 0;
};

struct Result {
  std::vector<float> master, momentum;
  std::vector<std::uint16_t> copy;  ///< bits
  DType copy_dtype = DType::bf16;
};

/// Group 0 has momentum, group 1 has none.
const std::vector<GroupStep> groups = {{0.1, 0, 0, 0.9, 0.01, 1, 1}, {0.05, 0, 0, 0, 0.0, 1, 1}};

Result run(const Session& session, const Case& c) {
  Array<float> master(session, normal_values<float>(c.count, 1)), momentum(session, normal_values<float>(c.count, 2));
  Array<std::uint16_t> copy(session, std::vector<std::uint16_t>(c.count, 0xABCD));
  const Array<float> g0(session, normal_values<float>(c.count, 3)), g1(session, normal_values<float>(c.count, 4)),
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
  SgdArgs args;
  args.master = master.data();
  args.momentum = momentum.data();
  args.param16 = copy.data();
  args.param16_dtype = c.copy_dtype;
  args.grad = {{g0.data(), g1.data(), g2.data()}, c.sources, DType::f32};
  args.tiles = tiles.data();
  args.tile_count = static_cast<std::uint32_t>(tiles.size());
  args.groups = steps.data();
  args.state = state.data();
  args.dampening = c.dampening;
  args.nesterov = c.nesterov ? 1 : 0;
  kernels::sgd(session.exec(), args);
  return {master.host(), momentum.host(), copy.host(), c.copy_dtype};
}

void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(count_differing(a.master, b.master), 0U);
  EXPECT_EQ(count_differing(a.momentum, b.momentum), 0U);
  EXPECT_EQ(count_differing(a.copy_dtype, a.copy, b.copy), 0U);
}

class Sgd : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};
};

TEST_P(Sgd, EqualsTheReferenceBitForBit) {
  std::vector<Case> cases;
  for (const std::size_t count : {0, 1, 31, 32, 33, 257, 20003}) cases.push_back({count});
  cases.push_back({5003, 3, DType::f16});
  cases.push_back({5003, 2, DType::bf16, true});
  cases.push_back({5003, 1, DType::bf16, false, 0.5F});
  cases.push_back({5003, 1, DType::bf16, false, 0.5F, 1});
  for (const Case& c : cases) {
    SCOPED_TRACE(c.count);
    const auto body = [&] { return run(session(), c); };
    expect_equal(body(), run(reference_, c));
    under_thread_orders(session(), body, expect_equal);
  }
}

TEST_P(Sgd, AShardLiesAtItsOwnIndex) {
  constexpr std::size_t count = 3000, first = 1000, size = 700;
  const std::vector<float> p = normal_values<float>(count, 1), momentum = normal_values<float>(count, 2),
                           g = normal_values<float>(count, 3);
  const auto piece = [&](const std::vector<float>& values) {
    return std::vector<float>(values.begin() + first, values.begin() + first + size);
  };
  const Array<GroupStep> steps(session(), groups);
  StepState state_value;
  state_value.applied = 5;
  const Array<StepState> state(session(), std::vector<StepState>{state_value});
  const Array<float> whole_p(session(), p), whole_momentum(session(), momentum), grad(session(), g);
  const Array<float> shard_p(session(), piece(p)), shard_momentum(session(), piece(momentum));
  const Array<bf16> whole_copy(session(), count), copy(session(), count);
  const auto update = [&](const Array<float>& master, const Array<float>& buffer, const Array<bf16>& to, Tile tile) {
    const Array<Tile> tiles(session(), std::vector<Tile>{tile});
    kernels::sgd(exec(), {.master = master.data(),
                          .momentum = buffer.data(),
                          .param16 = to.data(),
                          .grad = {.source = {grad.data()}},
                          .tiles = tiles.data(),
                          .tile_count = 1,
                          .groups = steps.data(),
                          .state = state.data()});
    session().device().synchronize(exec().stream);
  };

  update(whole_p, whole_momentum, whole_copy, unsharded_tile(first, size, 0));
  update(shard_p, shard_momentum, copy, {.begin = first, .shard_begin = 0, .count = size, .group = 0});

  EXPECT_EQ(count_differing(shard_p.host(), piece(whole_p.host())), 0U);
  EXPECT_EQ(count_differing(shard_momentum.host(), piece(whole_momentum.host())), 0U);
  EXPECT_EQ(count_differing(copy.host(), whole_copy.host()), 0U);
  EXPECT_NE(count_differing(shard_p.host(), piece(p)), 0U);
}

TEST_P(Sgd, GroupsWithoutMomentumKeepTheirBuffer) {
  const Result result = run(session(), {2002});
  const std::vector<float> before = normal_values<float>(2002, 2);
  EXPECT_NE(result.momentum[0], before[0]);
  for (std::size_t i = 1001; i < 2002; ++i) EXPECT_EQ(result.momentum[i], before[i]);
}

TEST_P(Sgd, ChangesNothingInASkippedStep) {
  Case c = {300};
  c.skip = 1;
  const Result result = run(session(), c);
  EXPECT_EQ(result.master, normal_values<float>(300, 1));
  EXPECT_EQ(result.momentum, normal_values<float>(300, 2));
  EXPECT_EQ(result.copy, std::vector<std::uint16_t>(300, 0xABCD));
}

TEST_P(Sgd, TheCopyIsTheRoundedParameter) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Result result = run(session(), {300, 1, dtype});
    for (std::size_t i = 0; i < 300; ++i)
      EXPECT_EQ(result.copy[i], dtype == DType::bf16 ? bf16(result.master[i]).bits : f16(result.master[i]).bits);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Sgd, all_backends(), backend_name);

TEST(SgdRule, FollowsTorchInDouble) {
  for (const bool nesterov : {false, true}) {
    const double dampening = nesterov ? 0.0 : 0.25, momentum = 0.9, decay = 0.1, lr = 0.05;
    const GroupStep step = {lr, 0, 0, momentum, decay, 1, 1};
    double p = 0.5, buf = 0, rule_p = 0.5, rule_buf = 123;  // what is in the buffer before the first update is ignored
    for (int t = 1; t <= 10; ++t) {
      const double g = normal_at(7, RngStream::synthetic, 9, static_cast<std::uint64_t>(t));
      const double d = g / 4 + decay * p;
      buf = t == 1 ? d : momentum * buf + (1 - dampening) * d;
      p -= lr * (nesterov ? d + momentum * buf : buf);
      sgd_element(rule_p, rule_buf, g, sgd_scalars<double>(step, 0.25, dampening, nesterov, t == 1));
      EXPECT_DOUBLE_EQ(rule_p, p);
      EXPECT_DOUBLE_EQ(rule_buf, buf);
    }
  }
}

TEST(SgdRule, PlainDescentWithoutMomentum) {
  double p = 2, buf = 7;
  sgd_element(p, buf, 3.0, sgd_scalars<double>({0.5, 0, 0, 0, 0, 1, 1}, 1.0, 0, false, true));
  EXPECT_EQ(p, 0.5);
  EXPECT_EQ(buf, 7);
}

TEST(SgdRule, MissingMomentumBufferIsRefusedOnTheHost) {
  std::vector<float> p(4), g(4);
  const Tile tile = unsharded_tile(0, 4, 0);
  const StepState state;
  SgdArgs args;
  args.master = p.data();
  args.grad.source[0] = g.data();
  args.tiles = &tile;
  args.tile_count = 1;
  args.groups = groups.data();
  args.state = &state;
  for (const KernelTable* table : {&kernels::reference_table(), &kernels::cpu_table()}) {
    Exec exec;
    exec.table = table;
    EXPECT_THROW(kernels::sgd(exec, args), Error);
  }
}

}  // namespace
}  // namespace lockstep::testing
