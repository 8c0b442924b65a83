#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

// The base lr of adam_groups() is 0.5; f is what multiplies it.
double f(const Schedule& schedule, std::int64_t update) { return lr_at(schedule, update) / 0.5; }

TEST(Decay, EveryTypeHasTheSameWarmup) {
  for (const char* type : {"LinearDecay", "CosineDecay"}) {
    const auto schedule = make_schedule(type, {{"total_steps", 20}, {"warmup_steps", 4}}, adam_groups());
    for (std::int64_t k = 0; k < 4; ++k) EXPECT_EQ(f(*schedule, k), static_cast<double>(k + 1) / 4) << type;
    EXPECT_EQ(f(*schedule, 4), 1.0) << type;
    EXPECT_LT(f(*schedule, 5), 1.0) << type;
  }
}

TEST(Decay, FinalValueIsHeld) {
  for (const char* type : {"LinearDecay", "CosineDecay", "PolynomialDecay"}) {
    const auto schedule = make_schedule(type, {{"total_steps", 20}, {"final_ratio", 0.25}}, adam_groups());
    EXPECT_GT(f(*schedule, 19), 0.25) << type;
    EXPECT_EQ(f(*schedule, 20), 0.25) << type;
    EXPECT_EQ(f(*schedule, 2000), 0.25) << type;
  }
}

TEST(Decay, GroupsKeepTheirProportion) {
  const auto schedule = make_schedule("CosineDecay", {{"total_steps", 20}}, adam_groups(2));
  for (std::int64_t k = 0; k < 25; ++k) EXPECT_EQ(lr_at(*schedule, k, 0), 2 * lr_at(*schedule, k, 1));
}

TEST(Decay, TotalBelowWarmupWarns) {
  const auto schedule = make_schedule("LinearDecay", {{"total_steps", 5}, {"warmup_steps", 10}}, adam_groups());
  EXPECT_EQ(schedule->warnings().size(), 1U);
  EXPECT_EQ(f(*schedule, 9), 1.0);
  EXPECT_EQ(f(*schedule, 10), 0.0);
}

TEST(Decay, AFinalRateAboveTheFirstWarns) {
  for (const char* type : {"LinearDecay", "CosineDecay", "PolynomialDecay"}) {
    const auto schedule = make_schedule(type, {{"total_steps", 20}, {"final_ratio", 1.5}}, adam_groups());
    ASSERT_EQ(schedule->warnings().size(), 1U) << type;
    EXPECT_NE(schedule->warnings()[0].find("final_ratio 1.5 is above 1"), std::string::npos);
  }
}

TEST(Constant, FactorAlsoScalesTheRamp) {
  const auto schedule = make_schedule("Constant", {{"factor", 0.5}, {"warmup_steps", 4}}, adam_groups());
  EXPECT_EQ(f(*schedule, 0), 0.125);
  EXPECT_EQ(f(*schedule, 3), 0.5);
  EXPECT_EQ(f(*schedule, 100), 0.5);
}

TEST(LinearDecay, IsALine) {
  const auto schedule = make_schedule("LinearDecay", {{"total_steps", 8}}, adam_groups());
  for (std::int64_t k = 0; k <= 8; ++k) EXPECT_EQ(f(*schedule, k), 1.0 - static_cast<double>(k) / 8);
}

TEST(CosineDecay, HalfWayIsHalf) {
  const auto schedule = make_schedule("CosineDecay", {{"total_steps", 20}, {"final_ratio", 0.5}}, adam_groups());
  // Double: an operation or two of rounding.
  EXPECT_NEAR(f(*schedule, 10), 0.75, 1e-15);
  EXPECT_NEAR(f(*schedule, 5) - 0.75, 0.75 - f(*schedule, 15), 1e-15);
}

TEST(CosineDecay, CyclesRestartAndGrow) {
  const auto schedule = make_schedule(
      "CosineDecay", {{"total_steps", 100}, {"first_cycle_steps", 10}, {"cycle_mult", 2.0}, {"warmup_steps", 3}},
      adam_groups());
  for (const std::int64_t start : {3, 13, 33}) EXPECT_EQ(f(*schedule, start), 1.0) << start;
  for (std::int64_t j = 0; j < 10; ++j) EXPECT_EQ(f(*schedule, 3 + j), f(*schedule, 13 + 2 * j)) << j;
  EXPECT_EQ(f(*schedule, 100), 0.0);
}

// Many cycles that hardly grow are passed over at once: the place in the last one is the same.
TEST(CosineDecay, ManyCyclesAreWalkedWithoutDelay) {
  const double mult = 1.001, first = 10;
  const auto schedule = make_schedule(
      "CosineDecay", {{"total_steps", 10'000'000}, {"first_cycle_steps", 10}, {"cycle_mult", mult}}, adam_groups());
  for (const std::int64_t update : {20'000, 100'000, 9'999'999}) {
    double begin = 0, length = first;
    while (begin + length <= static_cast<double>(update)) begin += length, length *= mult;
    const double place = (static_cast<double>(update) - begin) / length;
    // Both add up thousands of cycle lengths in double: the place in the last one is known to some 1e-7 of it.
    EXPECT_NEAR(f(*schedule, update), (1 + std::cos(std::numbers::pi * place)) / 2, 1e-6) << update;
  }
  const auto nearly_equal = make_schedule(
      "CosineDecay", {{"total_steps", 2'000'000'000}, {"first_cycle_steps", 1}, {"cycle_mult", 1 + 1e-12}},
      adam_groups());
  for (std::int64_t k = 0; k < 10'000; ++k) EXPECT_GE(f(*nearly_equal, 1'900'000'000 + k), 0.0);  // in no time
}

TEST(CosineDecay, EqualCyclesRepeatTheSameRates) {
  const auto schedule = make_schedule("CosineDecay", {{"total_steps", 1000}, {"first_cycle_steps", 10}}, adam_groups());
  for (std::int64_t k = 0; k < 10; ++k) EXPECT_EQ(f(*schedule, k), f(*schedule, 970 + k));
}

TEST(StepDecay, DropsAtMultiples) {
  const auto schedule =
      make_schedule("StepDecay", {{"step_size", 5}, {"gamma", 0.5}, {"warmup_steps", 2}}, adam_groups());
  EXPECT_EQ(f(*schedule, 6), 1.0);
  EXPECT_EQ(f(*schedule, 7), 0.5);
  EXPECT_EQ(f(*schedule, 11), 0.5);
  EXPECT_EQ(f(*schedule, 12), 0.25);
}

TEST(MultiStepDecay, DropsAtMilestonesInAnyOrder) {
  const auto schedule =
      make_schedule("MultiStepDecay", {{"milestones", ParamValue::List{9, 4}}, {"gamma", 0.5}}, adam_groups());
  EXPECT_EQ(f(*schedule, 3), 1.0);
  EXPECT_EQ(f(*schedule, 4), 0.5);
  EXPECT_EQ(f(*schedule, 9), 0.25);
}

TEST(ExponentialDecay, MultipliesEveryUpdate) {
  const auto schedule = make_schedule("ExponentialDecay", {{"gamma", 0.5}}, adam_groups());
  for (std::int64_t k = 0; k < 20; ++k) EXPECT_EQ(f(*schedule, k), std::ldexp(1.0, static_cast<int>(-k)));
}

TEST(PolynomialDecay, PowerOneIsLinear) {
  const auto line = make_schedule("LinearDecay", {{"total_steps", 9}}, adam_groups());
  const auto one = make_schedule("PolynomialDecay", {{"total_steps", 9}, {"power", 1}}, adam_groups());
  const auto two = make_schedule("PolynomialDecay", {{"total_steps", 9}, {"power", 2}}, adam_groups());
  for (std::int64_t k = 0; k < 12; ++k) {
    EXPECT_EQ(f(*one, k), f(*line, k));
    // Double: an operation or two of rounding.
    EXPECT_NEAR(f(*two, k), f(*line, k) * f(*line, k), 1e-15);
  }
}

TEST(InverseSqrt, FourTimesTheUpdatesHalveTheRate) {
  const auto schedule = make_schedule("InverseSqrt", {{"warmup_steps", 16}}, adam_groups());
  EXPECT_EQ(f(*schedule, 16), 1.0);
  EXPECT_EQ(f(*schedule, 64), 0.5);
  EXPECT_EQ(f(*schedule, 256), 0.25);
}

TEST(WSD, HoldsThenFalls) {
  for (const char* curve : {"linear", "cosine", "sqrt"}) {
    const auto schedule = make_schedule(
        "WSD", {{"warmup_steps", 2}, {"stable_steps", 6}, {"decay_steps", 4}, {"decay", curve}, {"final_ratio", 0.1}},
        adam_groups());
    EXPECT_EQ(f(*schedule, 8), 1.0) << curve;
    EXPECT_LT(f(*schedule, 9), 1.0) << curve;
    EXPECT_EQ(f(*schedule, 12), 0.1) << curve;
  }
  EXPECT_THAT(refusal("WSD", {{"stable_steps", 6}, {"decay_steps", 4}, {"decay", "square"}}),
              testing::HasSubstr("linear, cosine, sqrt"));
}

}  // namespace
}  // namespace lockstep::sched
