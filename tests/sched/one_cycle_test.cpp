#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

const Params cycle = {{"cycle_min_lr", 0.01}, {"cycle_max_lr", 0.1}, {"cycle_first_step_size", 4}};

Params with(Params params, const char* name, ParamValue value) {
  params.set(name, std::move(value));
  return params;
}

TEST(OneCycle, RisesAndFallsAlongASymmetricTriangle) {
  const auto schedule = make_schedule("OneCycle", cycle, adam_groups());
  for (const std::int64_t k : {1, 2, 3}) {
    // Here and below: double, an operation or two of rounding in another order.
    EXPECT_NEAR(lr_at(*schedule, k), 0.01 + 0.09 * static_cast<double>(k) / 4, 1e-15);
    EXPECT_NEAR(lr_at(*schedule, k), lr_at(*schedule, 8 - k), 1e-15);
  }
  EXPECT_NEAR(lr_at(*schedule, 4), 0.1, 1e-15);
  EXPECT_EQ(lr_at(*schedule, 8), 0.01);
  EXPECT_EQ(lr_at(*schedule, 1000), 0.01);
}

TEST(OneCycle, MomentumRunsAgainstTheRate) {
  const auto schedule = make_schedule("OneCycle", cycle, adam_groups());
  EXPECT_EQ(values_at(*schedule, 0).beta1, 0.8);  // DeepSpeed constructs with the minimum
  EXPECT_NEAR(values_at(*schedule, 1).beta1, 0.875, 1e-15);
  EXPECT_NEAR(values_at(*schedule, 4).beta1, 0.8, 1e-15);
  EXPECT_EQ(values_at(*schedule, 8).beta1, 0.9);
  for (std::int64_t k = 0; k < 12; ++k) EXPECT_EQ(values_at(*schedule, k).beta2, 0.99);
}

TEST(OneCycle, WithoutMomentumBothBetasStay) {
  const auto schedule = make_schedule("OneCycle", with(cycle, "cycle_momentum", false), adam_groups());
  for (std::int64_t k = 0; k < 12; ++k) {
    EXPECT_EQ(values_at(*schedule, k).beta1, 0.9);
    EXPECT_EQ(values_at(*schedule, k).beta2, 0.999);
  }
}

TEST(OneCycle, StairsHoldTheirHeight) {
  const auto schedule = make_schedule("OneCycle", with(cycle, "cycle_first_stair_count", 2), adam_groups());
  EXPECT_EQ(lr_at(*schedule, 1), 0.01);
  EXPECT_EQ(lr_at(*schedule, 2), lr_at(*schedule, 3));
  EXPECT_NEAR(lr_at(*schedule, 2), 0.055, 1e-15);
}

TEST(OneCycle, MayFallAtOnce) {
  const auto schedule = make_schedule("OneCycle", with(cycle, "cycle_second_step_size", 0), adam_groups());
  EXPECT_NEAR(lr_at(*schedule, 3), 0.01 + 0.09 * 0.75, 1e-15);
  EXPECT_EQ(lr_at(*schedule, 4), 0.01);
}

TEST(OneCycle, MomentumOfSgdIsLeftAloneUnlessAskedFor) {
  const auto alone = make_schedule("OneCycle", cycle, sgd_groups());
  EXPECT_THAT(alone->warnings(), testing::ElementsAre(HasSubstr("cycle_sgd_momentum")));
  EXPECT_EQ(values_at(*alone, 4).momentum, 0.9);

  const auto cycled = make_schedule("OneCycle", with(cycle, "cycle_sgd_momentum", true), sgd_groups());
  EXPECT_THAT(cycled->warnings(), IsEmpty());
  EXPECT_EQ(values_at(*cycled, 0).momentum, 0.8);
  EXPECT_NEAR(values_at(*cycled, 1).momentum, 0.875, 1e-15);
  EXPECT_EQ(values_at(*cycled, 8).momentum, 0.9);
  EXPECT_EQ(values_at(*cycled, 8).beta1, 0.0);
}

TEST(OneCycle, MomentumOfSgdThatIsAskedForIsAdamsBeta1) {
  Params params = with(with(cycle, "decay_step_size", 3), "decay_mom_rate", 0.01);
  const auto adam = make_schedule("OneCycle", params, adam_groups());
  const auto sgd = make_schedule("OneCycle", with(params, "cycle_sgd_momentum", true), sgd_groups());
  for (std::int64_t k = 0; k < 40; ++k) {
    EXPECT_EQ(values_at(*sgd, k).momentum, values_at(*adam, k).beta1) << k;
    EXPECT_EQ(values_at(*sgd, k).lr, values_at(*adam, k).lr) << k;
  }
}

TEST(OneCycle, SgdWithoutMomentumCannotCycleIt) {
  auto groups = sgd_groups();
  groups[0].momentum = 0;
  EXPECT_THAT(refusal([&] { (void)make_schedule("OneCycle", with(cycle, "cycle_sgd_momentum", true), groups); }),
              HasSubstr("optimizer.params.momentum"));
}

TEST(OneCycle, WarnsOfMomentumThatGrows) {
  const Params params = with(with(cycle, "decay_step_size", 1), "decay_mom_rate", 0.1);
  const auto schedule = make_schedule("OneCycle", params, adam_groups());
  EXPECT_THAT(schedule->warnings(), testing::ElementsAre(HasSubstr("decay_mom_rate")));
  EXPECT_GT(values_at(*schedule, 30).beta1, 1.0);
}

TEST(OneCycle, RefusesValuesOutOfRange) {
  EXPECT_THAT(refusal("OneCycle", with(cycle, "cycle_first_step_size", 0)),
              HasSubstr("cycle_first_step_size: expected a number > 0"));
  EXPECT_THAT(refusal("OneCycle", with(cycle, "cycle_second_step_size", -1)),
              HasSubstr("cycle_second_step_size: expected a number >= 0"));
  EXPECT_THAT(refusal("OneCycle", with(cycle, "cycle_min_mom", ParamValue::List{0.8, 0.9})),
              HasSubstr("cycle_min_mom: the list has 2 entries, the optimizer has 1 parameter groups"));
}

}  // namespace
}  // namespace lockstep::sched
