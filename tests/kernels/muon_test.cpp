#include "kernels/muon/muon.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "kernels/muon/muon_rule.hpp"
#include "tests/support/kernel_backends.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::testing {
namespace {

const std::vector<GroupStep> groups = {{0.1, 0.9, 0.999, 0.8, 0.01, 1, 1}};

struct Case {
  std::size_t count = 0;
  int sources = 1;
  bool nesterov = true;
  DType copy_dtype = DType::bf16;
  std::int32_t skip = 0;
  std::size_t first = 0;  ///< of the matrix in the flat space
};

struct Result {
  std::vector<float> momentum, direction, master;
  std::vector<double> squares;
  std::vector<std::uint16_t> copy;  ///< bits
  DType copy_dtype = DType::bf16;
};

/// muon_direction, muon_normalize of its result and muon_apply with that.
Result run(const Session& session, const Case& c) {
  const std::size_t space = c.first + c.count;
  std::vector<Tile> list;
  for (std::size_t i = 0; i < c.count; i += tile_elements)
    list.push_back(
        unsharded_tile(c.first + i, static_cast<std::uint32_t>(std::min<std::size_t>(tile_elements, c.count - i)), 0));
  const auto tile_count = static_cast<std::uint32_t>(list.size());
  const Array<Tile> tiles(session, list);
  const Array<GroupStep> steps(session, groups);
  StepState state_value;
  state_value.grad_factor = 0.25;
  state_value.skip = c.skip;
  const Array<StepState> state(session, std::vector<StepState>{state_value});
  const Array<float> momentum(session, normal_values<float>(space, 2)), master(session, normal_values<float>(space, 1)),
      direction(session, std::vector<float>(c.count, 1.0F)), g0(session, normal_values<float>(space, 3)),
      g1(session, normal_values<float>(space, 4));
  const Array<double> squares(session, std::vector<double>(list.size(), 1.0));
  const Array<std::uint16_t> copy(session, std::vector<std::uint16_t>(space, 0xABCD));
  kernels::muon_direction(session.exec(), {.momentum = momentum.data(),
                                           .grad = {{g0.data(), g1.data()}, c.sources, DType::f32},
                                           .tiles = tiles.data(),
                                           .tile_count = tile_count,
                                           .groups = steps.data(),
                                           .state = state.data(),
                                           .direction = direction.data(),
                                           .squares = squares.data(),
                                           .nesterov = c.nesterov ? 1 : 0});
  kernels::muon_normalize(
      session.exec(),
      {.x = direction.data(), .count = c.count, .squares = squares.data(), .tile_count = tile_count, .eps = 1e-7F});
  kernels::muon_apply(session.exec(), {.master = master.data(),
                                       .param16 = copy.data(),
                                       .param16_dtype = c.copy_dtype,
                                       .tiles = tiles.data(),
                                       .tile_count = tile_count,
                                       .groups = steps.data(),
                                       .state = state.data(),
                                       .direction = direction.data(),
                                       .ratio = 1.5F});
  return {momentum.host(), direction.host(), master.host(), squares.host(), copy.host(), c.copy_dtype};
}

void expect_equal(const Result& a, const Result& b) {
  EXPECT_EQ(count_differing(a.momentum, b.momentum), 0U);
  EXPECT_EQ(count_differing(a.direction, b.direction), 0U);
  EXPECT_EQ(count_differing(a.master, b.master), 0U);
  EXPECT_EQ(a.squares, b.squares);
  EXPECT_EQ(count_differing(a.copy_dtype, a.copy, b.copy), 0U);
}

class Muon : public KernelTest {
 protected:
  const Session reference_{backend_list().front()};
};

TEST_P(Muon, EqualsTheReferenceBitForBit) {
  for (const Case& c : std::vector<Case>{
           {1}, {257}, {2 * tile_elements + 77}, {5003, 2, false, DType::f16}, {5003, 1, true, DType::bf16, 0, 129}}) {
    SCOPED_TRACE(c.count);
    const auto body = [&] { return run(session(), c); };
    expect_equal(body(), run(reference_, c));
    under_thread_orders(session(), body, expect_equal);
  }
}

TEST_P(Muon, ThreadsDoNotChangeTheResult) {
  Session one(GetParam(), 1), three(GetParam(), 3);
  expect_equal(run(three, {50003, 2}), run(one, {50003, 2}));
}

TEST_P(Muon, ADirectionHasTheNormOne) {
  const Result result = run(session(), {20000});
  double sum = 0;
  for (const float x : result.direction) sum += static_cast<double>(x) * static_cast<double>(x);
  EXPECT_NEAR(sum, 1, 1e-6);
}

TEST_P(Muon, ChangesNothingInASkippedStep) {
  Case c = {300};
  c.skip = 1;
  const Result result = run(session(), c);
  EXPECT_EQ(result.momentum, normal_values<float>(300, 2));
  EXPECT_EQ(result.master, normal_values<float>(300, 1));
  EXPECT_EQ(result.copy, std::vector<std::uint16_t>(300, 0xABCD));
}

TEST_P(Muon, ThePolynomialIsTakenElementByElement) {
  constexpr std::size_t n = 37;
  const std::vector<float> s = normal_values<float>(n * n, 1), g = normal_values<float>(n * n, 2);
  const Array<float> square(session(), s), gram(session(), g);
  kernels::muon_polynomial(exec(),
                           {.square = square.data(), .gram = gram.data(), .n = n, .a = 3.5F, .b = -4.75F, .c = 2.0F});
  const std::vector<float> found = square.host();
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      float expected = 2.0F * s[i * n + j] + -4.75F * g[i * n + j];
      if (i == j) expected = expected + 3.5F;
      ASSERT_EQ(found[i * n + j], expected) << i << ", " << j;
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Muon, all_backends(), backend_name);

TEST(MuonRule, AMatrixOfZerosStaysOne) {
  EXPECT_EQ(muon_norm(0, 1e-7F), 1e-7F);
  EXPECT_EQ(muon_norm(9, 1e-7F), 3);
}

TEST(MuonRule, MomentumIsAMeanAndNesterovLooksAhead) {
  const GroupStep step = {0.5, 0, 0, 0.75, 0.5, 1, 1};
  double buf = 4;
  EXPECT_EQ(muon_direction_element(buf, 16.0, muon_scalars<double>(step, 0.5, false)), 0.75 * 4 + 0.25 * 8);
  EXPECT_EQ(buf, 5);
  EXPECT_EQ(muon_direction_element(buf, 16.0, muon_scalars<double>(step, 0.5, true)), 0.75 * 5.75 + 0.25 * 8);
  double p = 2;
  muon_apply_element(p, 3.0, 2.0, muon_scalars<double>(step, 1.0, true));
  EXPECT_EQ(p, 2 - 0.5 * (6 + 0.5 * 2));
}

}  // namespace
}  // namespace lockstep::testing
