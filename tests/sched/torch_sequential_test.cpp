#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Params chained(ParamValue::List schedulers, ParamValue::List milestones) {
  return {{"schedulers", std::move(schedulers)}, {"milestones", std::move(milestones)}};
}

const ParamValue::Block ramp = stage(0, "LinearLR", {{"start_factor", 0.1}, {"total_iters", 4}});
const ParamValue::Block fall = stage(0, "CosineAnnealingLR", {{"T_max", 16}});
const ParamValue::Block cycle = stage(0, "OneCycleLR", {{"max_lr", 0.1}, {"total_steps", 10}});

TEST(SequentialLR, IsASequenceWhereNoScheduleWritesWhatOthersRead) {
  const auto torchs = make_schedule("SequentialLR", chained({ramp, fall}, {4}), adam_groups());
  const auto ours = make_schedule(
      "Sequence",
      {{"stages", ParamValue::List{stage(4, "LinearLR", {{"start_factor", 0.1}, {"total_iters", 4}}), fall}}},
      adam_groups());

  for (std::int64_t k = 0; k < 40; ++k) EXPECT_EQ(values_at(*torchs, k), values_at(*ours, k)) << k;
  EXPECT_THAT(torchs->notes(), IsEmpty());
}

TEST(SequentialLR, SaysWhereAScheduleStartsFromAnothersRate) {
  const auto schedule = make_schedule("SequentialLR", chained({ramp, cycle, fall}, {4, 14}), adam_groups());

  EXPECT_EQ(lr_at(*schedule, 14), 0.1 / 25);
  EXPECT_THAT(schedule->notes(), Contains(HasSubstr("scheduler 3, CosineAnnealingLR, starts from lr 0.004")));
  EXPECT_THAT(schedule->notes(), Contains(HasSubstr("scheduler 1, LinearLR, starts from lr 0.004")));
}

TEST(SequentialLR, LeavesMomentumWhereTheLastScheduleThatMovedItHasLeftIt) {
  const auto schedule = make_schedule("SequentialLR", chained({ramp, cycle, fall}, {4, 14}), sgd_groups());

  EXPECT_EQ(values_at(*schedule, 0).momentum, 0.95) << "OneCycleLR's, written when it was made";
  for (const std::int64_t k : {14, 15, 99})
    EXPECT_EQ(values_at(*schedule, k),
              (StepValues{.lr = lr_at(*schedule, k), .momentum = values_at(*schedule, 13).momentum}));
}

TEST(SequentialLR, MilestonesFitTheSchedulers) {
  EXPECT_THAT(refusal("SequentialLR", chained({ramp, fall}, {4, 9})), HasSubstr("2 schedulers need 1 milestones"));
  EXPECT_THAT(refusal("SequentialLR", chained({ramp, fall, cycle}, {9, 4})), HasSubstr("4 does not come after 9"));
  EXPECT_THAT(refusal("SequentialLR", chained({ramp, fall, cycle}, {4, 4})), HasSubstr("would never act"));
  EXPECT_THAT(refusal("SequentialLR", chained({ramp, fall}, {0})),
              HasSubstr("milestones[0]: expected an integer >= 1"));
}

TEST(SequentialLR, TakesTorchsSchedulersAlone) {
  const auto inside = [](const ParamValue::Block& one) { return refusal("SequentialLR", chained({one, fall}, {4})); };
  EXPECT_THAT(inside(stage(0, "WarmupLR", {})), HasSubstr("Sequence takes any scheduler"));
  EXPECT_THAT(inside(stage(0, "SequentialLR", chained({ramp, fall}, {2}))),
              HasSubstr("name all schedulers in one list"));
  EXPECT_THAT(inside(stage(0, "ReduceLROnPlateau", {})), HasSubstr("needs a metric"));
  EXPECT_THAT(inside(stage(0, "StepLR", {})), HasSubstr("params.schedulers[0].params.step_size is required"));
}

TEST(SequentialLR, ASchedulerThatTheRunDoesNotReachWarns) {
  const auto schedule = make_schedule("SequentialLR", chained({ramp, fall}, {12}), adam_groups());
  const auto longer = make_schedule("SequentialLR", chained({ramp, fall}, {12}), adam_groups());
  schedule->look_ahead(12);
  longer->look_ahead(13);
  EXPECT_THAT(schedule->warnings(),
              ElementsAre(HasSubstr("before scheduler 2, CosineAnnealingLR, begins with update 12")));
  EXPECT_THAT(longer->warnings(), IsEmpty());
}

TEST(SequentialLR, AutoIsTheSchedulersOwnNumberOfUpdates) {
  const auto with = [](ParamValue first, ParamValue second, ParamValue third) {
    return chained({stage(0, "LinearLR", {{"total_iters", std::move(first)}}),
                    stage(0, "OneCycleLR", {{"max_lr", 0.1}, {"total_steps", std::move(second)}}),
                    stage(0, "CosineAnnealingLR", {{"T_max", std::move(third)}})},
                   {10, 30});
  };
  EXPECT_EQ(without_auto("SequentialLR", with("auto", "auto", "auto"), 100), with(10, 20, 70));
  EXPECT_EQ(without_auto("SequentialLR", with("auto", "auto", "auto"), 20), with(10, 20, 1));
}

}  // namespace
}  // namespace lockstep::sched
