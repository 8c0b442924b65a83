#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Params stages(ParamValue::List list) { return {{"stages", std::move(list)}}; }

const ParamValue::Block ramp = stage(4, "LinearLR", {{"start_factor", 0.5}, {"total_iters", 4}});
const ParamValue::Block cycle = stage(8, "CyclicLR", {{"base_lr", 0.1}, {"max_lr", 0.5}, {"step_size_up", 4}});
const ParamValue::Block warmup = stage(6, "WarmupLR", {{"warmup_num_steps", 4}});
const ParamValue::Block tail = stage(0, "CosineDecay", {{"total_steps", 10}});

std::vector<StepValues> alone(const char* type, const Params& params, std::int64_t update) {
  std::vector<StepValues> values(2);
  make_schedule(type, params, adam_groups(2))->values_at(update, values);
  return values;
}

TEST(Sequence, EachStageIsTheScheduleAloneWithAClockThatStartsAtZero) {
  const auto schedule = make_schedule("Sequence", stages({ramp, cycle, warmup, tail}), adam_groups(2));
  std::vector<StepValues> values(2);
  for (std::int64_t k = 0; k < 40; ++k) {
    schedule->values_at(k, values);
    if (k < 4)
      EXPECT_EQ(values, alone("LinearLR", {{"start_factor", 0.5}, {"total_iters", 4}}, k)) << k;
    else if (k < 12)
      EXPECT_EQ(values, alone("CyclicLR", {{"base_lr", 0.1}, {"max_lr", 0.5}, {"step_size_up", 4}}, k - 4)) << k;
    else if (k < 18)
      EXPECT_EQ(values, alone("WarmupLR", {{"warmup_num_steps", 4}}, k - 12)) << k;
    else
      EXPECT_EQ(values, alone("CosineDecay", {{"total_steps", 10}}, k - 18)) << k;
  }
}

TEST(Sequence, AStageThatCyclesNoMomentumUsesTheOptimizers) {
  const auto betas = make_schedule("Sequence", stages({cycle, tail}), adam_groups());
  const auto momentum = make_schedule("Sequence", stages({cycle, tail}), sgd_groups());
  EXPECT_NEAR(values_at(*betas, 4).beta1, 0.8, 1e-15);  // double: a few operations of rounding
  EXPECT_NEAR(values_at(*momentum, 4).momentum, 0.8, 1e-15);
  for (const std::int64_t k : {8, 9, 50}) {
    EXPECT_EQ(values_at(*betas, k).beta1, 0.9) << k;
    EXPECT_EQ(values_at(*momentum, k).momentum, 0.9) << k;
  }
}

TEST(Sequence, MayHoldAnother) {
  const auto flat = make_schedule("Sequence", stages({ramp, cycle, tail}), adam_groups());
  const auto nested =
      make_schedule("Sequence", stages({ramp, stage(0, "Sequence", stages({cycle, tail}))}), adam_groups());
  for (std::int64_t k = 0; k < 40; ++k) EXPECT_EQ(values_at(*nested, k), values_at(*flat, k)) << k;
}

TEST(Sequence, StepsStandInEveryStageButTheLast) {
  EXPECT_THAT(refusal("Sequence", stages({tail, tail})), HasSubstr("stage 1, CosineDecay needs its number of steps"));
  EXPECT_THAT(refusal("Sequence", stages({ramp, ramp})), HasSubstr("stage 2, LinearLR is the last"));
  EXPECT_THAT(refusal("Sequence", stages({})), HasSubstr("a list of 0"));
  EXPECT_THAT(refusal("Sequence", stages({stage(-1, "Constant", {}), tail})),
              HasSubstr("stages[0].steps: expected an integer >= 1"));
}

TEST(Sequence, MistakesInAStageNameTheirPlace) {
  EXPECT_THAT(refusal("Sequence", stages({stage(3, "StepLRR", {}), tail})), HasSubstr("did you mean 'StepLR'?"));
  EXPECT_THAT(refusal("Sequence", stages({ramp, stage(0, "StepLR", {{"gamma", 0.5}})})),
              HasSubstr("params.stages[1].params.step_size is required"));
  EXPECT_THAT(refusal("Sequence", stages({ramp, stage(0, "Sequence", stages({stage(0, "StepLR", {{"step", 1}})}))})),
              HasSubstr("params.stages[1].params.stages[0].params"));
}

TEST(Sequence, WarningsSayWhichStage) {
  const auto schedule = make_schedule(
      "Sequence", stages({ramp, stage(0, "CosineDecay", {{"total_steps", 10}, {"final_ratio", 2.0}})}), adam_groups());
  EXPECT_THAT(schedule->warnings(), ElementsAre(HasSubstr("stage 2, CosineDecay: final_ratio 2 is above 1")));
}

TEST(Sequence, AStageThatTheRunDoesNotReachWarns) {
  const auto schedule = make_schedule("Sequence", stages({ramp, cycle, tail}), adam_groups());
  const auto longer = make_schedule("Sequence", stages({ramp, cycle, tail}), adam_groups());
  schedule->look_ahead(12);
  longer->look_ahead(13);
  EXPECT_THAT(schedule->warnings(), ElementsAre(HasSubstr("before stage 3, CosineDecay, begins with update 12")));
  EXPECT_THAT(longer->warnings(), IsEmpty());
}

TEST(Sequence, LooksAheadIntoItsStages) {
  const auto schedule =
      make_schedule("Sequence", stages({ramp, stage(0, "ExponentialLR", {{"gamma", 1e9}})}), adam_groups());
  schedule->look_ahead(60);
  // 0.5 times 10^9 to the power of k - 4 is infinite first for k - 4 = 35.
  EXPECT_THAT(schedule->warnings(), Contains(HasSubstr("inf at update 39")));
}

TEST(Sequence, AutoIsTheStagesOwnNumberOfSteps) {
  const auto with = [](ParamValue first, ParamValue inner) {
    return stages({stage(30, "CosineAnnealingLR", {{"T_max", std::move(first)}}),
                   stage(0, "Sequence",
                         stages({stage(10, "Constant", {}),
                                 stage(0, "WarmupDecayLR", {{"total_num_steps", std::move(inner)}})}))});
  };
  EXPECT_EQ(without_auto("Sequence", with("auto", "auto"), 100), with(30, 60.0));
  EXPECT_EQ(without_auto("Sequence", with("auto", "auto"), 35), with(30, 1.0));
  EXPECT_THAT(refusal("Sequence", with("auto", 5.0)), HasSubstr("run.steps"));
}

}  // namespace
}  // namespace lockstep::sched
