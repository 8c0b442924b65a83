#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(StepLR, DropsAtMultiples) {
  const auto schedule = make_schedule("StepLR", {{"step_size", 3}, {"gamma", 0.5}}, adam_groups());
  EXPECT_EQ(lr_at(*schedule, 2), 0.5);
  EXPECT_EQ(lr_at(*schedule, 3), 0.25);
  EXPECT_EQ(lr_at(*schedule, 6), 0.125);
}

TEST(MultiStepLR, AMilestoneNamedTwiceCountsTwice) {
  const auto schedule =
      make_schedule("MultiStepLR", {{"milestones", ParamValue::List{4, 4, 0}}, {"gamma", 0.5}}, adam_groups());
  EXPECT_EQ(lr_at(*schedule, 0), 0.25);
  EXPECT_EQ(lr_at(*schedule, 3), 0.25);
  EXPECT_EQ(lr_at(*schedule, 4), 0.0625);
}

TEST(ConstantLR, EndsAtTheOptimizersRateExactly) {
  const auto schedule = make_schedule("ConstantLR", {{"factor", 0.0}, {"total_iters", 2}}, adam_groups());
  EXPECT_EQ(lr_at(*schedule, 1), 0.0);
  EXPECT_EQ(lr_at(*schedule, 2), 0.5);
}

TEST(LinearLR, HoldsItsEnd) {
  const auto schedule =
      make_schedule("LinearLR", {{"start_factor", 1.0}, {"end_factor", 0.0}, {"total_iters", 4}}, adam_groups());
  for (std::int64_t k = 0; k <= 4; ++k) EXPECT_EQ(lr_at(*schedule, k), 0.5 - 0.125 * static_cast<double>(k));
  EXPECT_EQ(lr_at(*schedule, 1000), 0.0);
}

TEST(CosineAnnealingLR, RisesAgainAfterTheMinimum) {
  const auto schedule = make_schedule("CosineAnnealingLR", {{"T_max", 10}, {"eta_min", 0.1}}, adam_groups());
  for (std::int64_t k = 0; k <= 10; ++k) {
    // Double: the first step up, 0.05 high, is a difference of numbers near 1, and angles near 20 pi are known to
    // 1e-14.
    EXPECT_NEAR(lr_at(*schedule, 10 + k), lr_at(*schedule, 10 - k), 1e-13) << k;
    EXPECT_NEAR(lr_at(*schedule, 200 + k), lr_at(*schedule, k), 1e-13) << k;
  }
  EXPECT_EQ(lr_at(*schedule, 10), 0.1);
}

TEST(CosineAnnealingWarmRestarts, StartsAgainFromTheTop) {
  const auto schedule = make_schedule("CosineAnnealingWarmRestarts", {{"T_0", 4}, {"T_mult", 3}}, adam_groups());
  for (const std::int64_t start : {0, 4, 16, 52}) EXPECT_EQ(lr_at(*schedule, start), 0.5) << start;
  EXPECT_LT(lr_at(*schedule, 15), 0.02);
  EXPECT_LE(lr_at(*schedule, std::int64_t{1} << 62), 0.5);  // the length of a cycle does not overflow
}

TEST(TorchDecay, AFloorAboveTheRateWarns) {
  for (const char* type : {"CosineAnnealingLR", "CosineAnnealingWarmRestarts"}) {
    const char* length = type == std::string("CosineAnnealingLR") ? "T_max" : "T_0";
    const auto above = make_schedule(type, {{length, 10}, {"eta_min", 0.3}}, adam_groups(2));
    const auto below = make_schedule(type, {{length, 10}, {"eta_min", 0.25}}, adam_groups(2));
    EXPECT_THAT(above->warnings(), ElementsAre(HasSubstr("eta_min 0.3 is above the optimizer's lr 0.25"))) << type;
    EXPECT_THAT(below->warnings(), IsEmpty()) << type;
  }
}

TEST(TorchDecay, RefusesWhatTorchRefuses) {
  EXPECT_THAT(refusal("ConstantLR", {{"factor", 1.5}}), HasSubstr("factor"));
  EXPECT_THAT(refusal("LinearLR", {{"start_factor", 0.0}}), HasSubstr("start_factor"));
  EXPECT_THAT(refusal("LinearLR", {{"end_factor", 1.01}}), HasSubstr("end_factor"));
  EXPECT_THAT(refusal("PolynomialLR", {{"total_iters", 0}}), HasSubstr("expected an integer >= 1"));
  EXPECT_THAT(refusal("CosineAnnealingWarmRestarts", {{"T_0", 4}, {"T_mult", 0}}), HasSubstr("T_mult"));
  EXPECT_THAT(refusal("CosineAnnealingWarmRestarts", {{"T_0", 4.0}}), HasSubstr("write 4"));
}

}  // namespace
}  // namespace lockstep::sched
