#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(WarmupLR, FollowsThePublishedExample) {  // the scheduler tutorial's: 0.001 -> 0.01 in 100 steps, one step a batch
  const auto schedule = make_schedule(
      "WarmupLR", {{"warmup_min_lr", 0.001}, {"warmup_max_lr", 0.01}, {"warmup_num_steps", 100}}, adam_groups());
  EXPECT_EQ(lr_at(*schedule, 0), 0.001);
  EXPECT_EQ(lr_at(*schedule, 1), 0.001);
  EXPECT_NEAR(lr_at(*schedule, 2), 0.001 + 0.009 * std::log(2.0) / std::log(100.0), 1e-17);
  EXPECT_EQ(lr_at(*schedule, 100), 0.009999999999999998);  // one step stepped twice prints 0.00235 instead
  EXPECT_EQ(lr_at(*schedule, 101), 0.010000000000000002);
}

TEST(WarmupLR, MaximumIsTheOptimizersUnlessGiven) {
  const auto schedule = make_schedule("WarmupLR", {{"warmup_num_steps", 2}}, adam_groups(2));
  EXPECT_EQ(lr_at(*schedule, 10, 0), 0.5);
  EXPECT_EQ(lr_at(*schedule, 10, 1), 0.25);
}

TEST(WarmupLR, OneStepBecomesTwo) {
  const auto one = make_schedule("WarmupLR", {{"warmup_num_steps", 1}}, adam_groups());
  const auto two = make_schedule("WarmupLR", {{"warmup_num_steps", 2}}, adam_groups());
  for (std::int64_t k = 0; k < 5; ++k) EXPECT_EQ(lr_at(*one, k), lr_at(*two, k));
}

TEST(WarmupLR, IntegersAreStrict) {
  EXPECT_THAT(refusal("WarmupLR", {{"warmup_num_steps", 0}}), HasSubstr("expected an integer >= 1"));
  EXPECT_THAT(refusal("WarmupLR", {{"warmup_num_steps", 10.0}}), HasSubstr("without '.'"));
}

TEST(WarmupLR, UnknownRampWarnsAndIsLog) {
  const auto odd = make_schedule("WarmupLR", {{"warmup_type", "cosine"}}, adam_groups());
  const auto log = make_schedule("WarmupLR", {{"warmup_type", "log"}}, adam_groups());
  EXPECT_THAT(odd->warnings(), ElementsAre(HasSubstr("cosine")));
  EXPECT_THAT(log->warnings(), IsEmpty());
  EXPECT_EQ(lr_at(*odd, 7), lr_at(*log, 7));
}

TEST(WarmupDecayLR, DefaultMaximumIsNotTheOptimizers) {
  const auto absent = make_schedule("WarmupDecayLR", {{"total_num_steps", 20}, {"warmup_num_steps", 4}}, adam_groups());
  EXPECT_EQ(lr_at(*absent, 5), 0.001);
  EXPECT_THAT(absent->warnings(), ElementsAre(HasSubstr("0.001")));
  const auto null =
      make_schedule("WarmupDecayLR",
                    {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"warmup_max_lr", ParamValue()}}, adam_groups());
  EXPECT_EQ(lr_at(*null, 5), 0.5);
  EXPECT_THAT(null->warnings(), IsEmpty());
}

TEST(WarmupDecayLR, ReachesTheMinimumAndStays) {
  const auto schedule =
      make_schedule("WarmupDecayLR",
                    {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"warmup_min_lr", 0.1}, {"warmup_max_lr", 0.5}},
                    adam_groups());
  EXPECT_GT(lr_at(*schedule, 20), 0.1);
  EXPECT_EQ(lr_at(*schedule, 21), 0.1);
  EXPECT_EQ(lr_at(*schedule, 500), 0.1);
}

TEST(WarmupDecayLR, TotalBelowWarmupWarnsAndDrops) {
  const auto schedule = make_schedule(
      "WarmupDecayLR", {{"total_num_steps", 5}, {"warmup_num_steps", 10}, {"warmup_max_lr", 0.5}}, adam_groups());
  EXPECT_THAT(schedule->warnings(), ElementsAre(HasSubstr("total_num_steps")));
  EXPECT_GT(lr_at(*schedule, 10), 0.4);
  EXPECT_EQ(lr_at(*schedule, 11), 0.0);
}

TEST(WarmupCosineLR, FirstUpdateIsZeroWhateverTheRatio) {
  const auto schedule = make_schedule(
      "WarmupCosineLR", {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"warmup_min_ratio", 0.5}}, adam_groups());
  EXPECT_EQ(lr_at(*schedule, 0), 0.0);
  EXPECT_EQ(lr_at(*schedule, 1), 0.25);
}

TEST(WarmupCosineLR, EndsAtTheFloorAndStays) {
  const auto schedule = make_schedule(
      "WarmupCosineLR", {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"cos_min_ratio", 0.125}}, adam_groups());
  EXPECT_GT(lr_at(*schedule, 19), 0.0625);
  EXPECT_EQ(lr_at(*schedule, 20), 0.0625);
  EXPECT_EQ(lr_at(*schedule, 200), 0.0625);
}

TEST(WarmupCosineLR, AFloorAboveThePeakWarns) {
  const auto of_floor = [](double floor) {
    return make_schedule("WarmupCosineLR", {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"cos_min_ratio", floor}},
                         adam_groups())
        ->warnings();
  };
  EXPECT_THAT(of_floor(10), ElementsAre(HasSubstr("cos_min_ratio 10 is above 1")));
  EXPECT_THAT(of_floor(1), IsEmpty());
}

TEST(WarmupCosineLR, ListOfRatiosIsRefusedAtOnce) {
  EXPECT_THAT(refusal("WarmupCosineLR", {{"total_num_steps", 9}, {"warmup_min_ratio", ParamValue::List{0.1}}}),
              HasSubstr("warmup_min_ratio"));
}

}  // namespace
}  // namespace lockstep::sched
