#include "sched/outlook.hpp"

#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> outlook_of(const char* type, const Params& params, std::int64_t updates,
                                    std::vector<GroupInitial> groups = adam_groups()) {
  return outlook(*make_schedule(type, params, std::move(groups)), updates);
}

TEST(Outlook, OfEveryOrdinaryScheduleIsClear) {
  for (const Case& c : cases())
    for (const std::int64_t updates : {0, 1, 40})
      EXPECT_THAT(outlook_of(c.type, c.params, updates), IsEmpty()) << c.type;
}

TEST(Outlook, NamesTheFirstUpdateWhoseRateIsInfinite) {
  // 0.5 x 1e9^34 is 5e305; the next is above the largest double.
  EXPECT_THAT(outlook_of("ExponentialDecay", {{"gamma", 1e9}}, 60),
              ElementsAre("the learning rate is inf at update 35: training cannot go on from there"));
  EXPECT_THAT(outlook_of("ExponentialDecay", {{"gamma", 1e9}}, 35), IsEmpty()) << "the run ends before";
}

TEST(Outlook, NamesTheFirstUpdateWhoseRateIsNegative) {
  EXPECT_THAT(outlook_of("LinearDecay", {{"total_steps", 4}, {"final_ratio", -0.5}}, 10),
              ElementsAre("the learning rate is negative at update 3 (-0.0625): it makes the loss grow"));
}

TEST(Outlook, SeesThePoleOfADecayingCycleAndWhatIsBeyondIt) {
  const Params params = {{"cycle_min_lr", 0.01}, {"cycle_max_lr", 0.1},   {"cycle_first_step_size", 2},
                         {"decay_step_size", 1}, {"decay_lr_rate", -0.5}, {"cycle_momentum", false}};
  // d = 2 at update 6 makes 1 - 0.5 d zero.
  EXPECT_THAT(outlook_of("OneCycle", params, 20),
              ElementsAre("the learning rate is inf at update 6: training cannot go on from there",
                          "the learning rate is negative at update 7 (-0.02): it makes the loss grow"));
}

TEST(Outlook, NamesTheParameterGroupIfOthersAreWell) {
  std::vector<GroupInitial> groups = adam_groups(3);
  groups[1].lr = 1e307;
  EXPECT_THAT(
      outlook_of("ExponentialDecay", {{"gamma", 10}}, 10, groups),
      ElementsAre("the learning rate of parameter group 1 is inf at update 2: training cannot go on from there"));
}

TEST(Outlook, SeesMomentumThatLeavesItsRange) {
  const Params params = {{"cycle_min_lr", 0.01}, {"cycle_max_lr", 0.1},   {"cycle_first_step_size", 2},
                         {"decay_step_size", 4}, {"decay_mom_rate", 0.5}, {"cycle_max_mom", 0.9}};
  EXPECT_THAT(outlook_of("OneCycle", params, 20), ElementsAre("beta1 is 1.0125 at update 5, outside [0, 1)"));
}

TEST(Outlook, FindsTheFirstUpdateOfALongRunExactly) {
  const Params params = {{"lr_range_test_step_size", 1'000'000}, {"lr_range_test_step_rate", -0.001}};
  // 1 - 0.001 k / 10^6 is below 0 from k = 10^9 + 1 on.
  const auto schedule = make_schedule("LRRangeTest", params, adam_groups());
  ASSERT_EQ(outlook(*schedule, 5'000'000'000).size(), 1U);
  EXPECT_THAT(outlook(*schedule, 5'000'000'000)[0], ::testing::HasSubstr("negative at update 1000000001 "));
  EXPECT_THAT(outlook(*schedule, 1'000'000'001), IsEmpty());
  EXPECT_EQ(outlook(*schedule, 1'000'000'002).size(), 1U);
}

TEST(Outlook, IsAmongTheWarningsOfAScheduleThatLookedAhead) {
  const auto schedule = make_schedule("ExponentialDecay", {{"gamma", 1e9}}, adam_groups());
  ASSERT_THAT(schedule->warnings(), IsEmpty());

  schedule->look_ahead(60);

  EXPECT_EQ(schedule->warnings(), outlook(*schedule, 60));
}

}  // namespace
}  // namespace lockstep::sched
