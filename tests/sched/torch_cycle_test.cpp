#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(OneCycleLR, RisesAndFallsFarBelowItsStart) {
  const auto schedule = make_schedule(
      "OneCycleLR", {{"max_lr", 1.0}, {"total_steps", 101}, {"pct_start", 0.5}, {"anneal_strategy", "linear"}},
      adam_groups());
  EXPECT_EQ(lr_at(*schedule, 0), 0.04);
  EXPECT_EQ(values_at(*schedule, 0).beta1, 0.95);
  EXPECT_NEAR(lr_at(*schedule, 49), 0.04 + 0.96 * (49 / 49.5), 1e-15);  // here and below: a few operations of rounding
  EXPECT_NEAR(values_at(*schedule, 49).beta1, 0.95 - 0.1 * (49 / 49.5), 1e-15);
  EXPECT_NEAR(lr_at(*schedule, 100), 4e-6, 1e-15);
}

// torch stops with an error after total_steps updates; a run may be longer.
TEST(OneCycleLR, HoldsItsEnd) {
  const auto schedule = make_schedule("OneCycleLR", {{"max_lr", 1.0}, {"total_steps", 10}}, adam_groups());
  for (const std::int64_t k : {10, 11, 1'000'000}) EXPECT_EQ(values_at(*schedule, k), values_at(*schedule, 9)) << k;
}

TEST(OneCycleLR, ARiseWithoutALengthIsRefused) {
  EXPECT_THAT(refusal("OneCycleLR", {{"max_lr", 1.0}, {"total_steps", 10}, {"pct_start", 0.1}}),
              HasSubstr("pct_start 0.1 of total_steps 10 is one update"));
}

TEST(OneCycleLR, TotalStepsMayNotBeLeftOut) {
  EXPECT_THAT(refusal("OneCycleLR", {{"max_lr", 1.0}}), HasSubstr("total_steps is required"));
}

const Params triangle = {{"base_lr", 0.1}, {"max_lr", 0.5}, {"step_size_up", 4}};

Params with(Params params, const char* name, ParamValue value) {
  params.set(name, std::move(value));
  return params;
}

TEST(CyclicLR, LaterTrianglesAreAsTheModeSays) {
  const auto same = make_schedule("CyclicLR", triangle, adam_groups());
  const auto half = make_schedule("CyclicLR", with(triangle, "mode", "triangular2"), adam_groups());
  const auto power = make_schedule("CyclicLR", with(with(triangle, "mode", "exp_range"), "gamma", 0.9), adam_groups());
  for (const std::int64_t cycle : {0, 1, 5}) {
    const std::int64_t top = 8 * cycle + 4;
    EXPECT_NEAR(lr_at(*same, top), 0.5, 1e-15);
    EXPECT_NEAR(lr_at(*half, top), 0.1 + 0.4 / std::exp2(cycle), 1e-15);
    EXPECT_NEAR(lr_at(*power, top), 0.1 + 0.4 * std::pow(0.9, top), 1e-15);
    EXPECT_EQ(lr_at(*same, top - 4), 0.1);
  }
}

TEST(CyclicLR, AGammaThatTheModeDoesNotUseWarns) {
  EXPECT_THAT(make_schedule("CyclicLR", with(triangle, "gamma", 0.9), adam_groups())->warnings(),
              ElementsAre(HasSubstr("gamma 0.9 has no effect")));
  EXPECT_THAT(make_schedule("CyclicLR", triangle, adam_groups())->warnings(), IsEmpty());
}

TEST(TorchCycle, MomentumRunsAgainstTheRate) {
  const auto betas = make_schedule("CyclicLR", triangle, adam_groups());
  const auto momentum = make_schedule("CyclicLR", triangle, sgd_groups());
  const auto kept = make_schedule("CyclicLR", with(triangle, "cycle_momentum", false), sgd_groups());
  EXPECT_EQ(values_at(*betas, 0).beta1, 0.9);
  EXPECT_NEAR(values_at(*betas, 4).beta1, 0.8, 1e-15);
  EXPECT_EQ(values_at(*betas, 4).beta2, 0.999);
  EXPECT_NEAR(values_at(*momentum, 2).momentum, 0.85, 1e-15);
  EXPECT_EQ(values_at(*momentum, 2).beta1, 0.0);
  EXPECT_EQ(values_at(*kept, 2).momentum, 0.9);
}

TEST(TorchCycle, SgdWithoutMomentumCannotCycleIt) {
  auto groups = sgd_groups();
  groups[0].momentum = 0;
  EXPECT_THAT(refusal([&] { (void)make_schedule("CyclicLR", triangle, groups); }),
              HasSubstr("optimizer.params.momentum"));
  EXPECT_NO_THROW((void)make_schedule("CyclicLR", with(triangle, "cycle_momentum", false), groups));
}

TEST(TorchCycle, SaysThatTheOptimizersRateIsNotUsed) {
  const auto schedule = make_schedule("OneCycleLR", {{"max_lr", 1.0}, {"total_steps", 10}}, adam_groups());
  EXPECT_THAT(schedule->notes(),
              ElementsAre(HasSubstr("beta1 moves between"), HasSubstr("optimizer's lr 0.5 is not used")));
}

}  // namespace
}  // namespace lockstep::sched
