#include <gmock/gmock.h>

#include <cmath>

#include "tests/sched/cases.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Params impatient = {{"patience", 1}, {"factor", 0.5}, {"cooldown", 1}};

/// A loss that gets better and worse.
double loss(std::int64_t i) { return 2 + std::sin(static_cast<double>(i)) / static_cast<double>(i + 1); }

std::vector<double> rates(const Schedule& schedule, const MetricState& state, std::int64_t update) {
  std::vector<StepValues> values(schedule.groups());
  schedule.values_at(update, values);
  schedule.follow(update, state, values);
  std::vector<double> lr;
  for (const StepValues& v : values) lr.push_back(v.lr);
  return lr;
}

// The values themselves are held against torch's in torch_traces_test.cpp.
TEST(ReduceLROnPlateau, GoesOnTheSameFromAnySavedState) {
  const auto schedule = make_schedule("ReduceLROnPlateau", impatient, adam_groups(2));
  for (std::int64_t cut = 0; cut < 30; ++cut) {
    MetricState straight = schedule->metric_state().value(), saved;
    for (std::int64_t i = 0; i < 30; ++i) {
      if (i == cut) saved = straight;
      schedule->observe(i, loss(i), straight);
    }
    for (std::int64_t i = cut; i < 30; ++i) schedule->observe(i, loss(i), saved);
    EXPECT_EQ(saved, straight) << cut;
    EXPECT_LT(rates(*schedule, saved, 30)[1], 0.25);
  }
}

TEST(ReduceLROnPlateau, BeforeAnyMetricItIsTheOptimizersRate) {
  const auto schedule = make_schedule("ReduceLROnPlateau", {}, adam_groups(2));
  EXPECT_EQ(rates(*schedule, schedule->metric_state().value(), 7), (std::vector<double>{0.5, 0.25}));
  EXPECT_EQ(lr_at(*schedule, 1000), 0.5);
  EXPECT_THAT(schedule->notes(), ElementsAre(HasSubstr("depends on val_loss")));
}

TEST(ReduceLROnPlateau, OtherSchedulesReadNoMetric) {
  for (const Case& c : cases()) {
    const auto schedule = make_schedule(c.type, c.params, adam_groups());
    const bool reads = std::string(c.type) == "ReduceLROnPlateau";
    EXPECT_EQ(schedule->metric_state().has_value(), reads) << c.type;
    MetricState state;
    if (reads) continue;
    const std::int64_t late = 1000;  // in the last stage of a Sequence
    EXPECT_THAT(testing::error_text(ErrorKind::internal, [&] { schedule->observe(late, 1.0, state); }),
                HasSubstr("reads no metric"));
  }
}

TEST(ReduceLROnPlateau, ModeMaxOfALossIsWarnedOf) {
  const auto schedule = make_schedule("ReduceLROnPlateau", {{"mode", "max"}}, adam_groups());
  EXPECT_THAT(schedule->warnings(), ElementsAre(HasSubstr("write mode: min")));
}

TEST(ReduceLROnPlateau, RefusesWhatTorchRefuses) {
  EXPECT_THAT(refusal("ReduceLROnPlateau", {{"factor", 1.0}}), HasSubstr("factor"));
  EXPECT_THAT(refusal("ReduceLROnPlateau", {{"mode", "auto"}}), HasSubstr("min, max"));
  EXPECT_THAT(refusal("ReduceLROnPlateau", {{"min_lr", ParamValue::List{0.1, 0.2}}}), HasSubstr("min_lr"));
}

TEST(ReduceLROnPlateau, MayBeTheLastStageOfASequenceAndReadsOnlyItsOwnMetrics) {
  const ParamValue::Block plateau = stage(0, "ReduceLROnPlateau", {{"patience", 0}, {"factor", 0.5}});
  const auto schedule = make_schedule(
      "Sequence", {{"stages", ParamValue::List{stage(10, "LinearLR", {{"total_iters", 10}}), plateau}}}, adam_groups());
  MetricState state = schedule->metric_state().value();

  for (const std::int64_t update : {3, 6, 9}) schedule->observe(update, 1.0, state);

  EXPECT_EQ(state.seen, 0);
  EXPECT_LT(rates(*schedule, state, 9)[0], 0.5) << "the ramp is still on";
  EXPECT_EQ(rates(*schedule, state, 10)[0], 0.5);
  for (const std::int64_t update : {12, 15, 18}) schedule->observe(update, 1.0, state);
  EXPECT_EQ(rates(*schedule, state, 18)[0], 0.125);
}

TEST(ReduceLROnPlateau, CannotEndAStage) {
  EXPECT_THAT(
      refusal("Sequence", {{"stages", ParamValue::List{stage(10, "ReduceLROnPlateau", {}), stage(0, "LinearLR", {})}}}),
      HasSubstr("only the last stage may read it"));
}

}  // namespace
}  // namespace lockstep::sched
