#include <gmock/gmock.h>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

using testing::HasSubstr;

TEST(LRRangeTest, GrowsWithoutAnEnd) {
  const auto schedule = make_schedule(
      "LRRangeTest", {{"lr_range_test_min_lr", 0.5}, {"lr_range_test_step_size", 4}, {"lr_range_test_step_rate", 2}},
      adam_groups());
  for (const std::int64_t k : {0, 1, 2, 3, 4, 100, 1000000})
    EXPECT_EQ(lr_at(*schedule, k), 0.5 * (1 + 2 * (static_cast<double>(k) / 4)));
}

TEST(LRRangeTest, StaircaseGrowsOnceAStepSize) {
  const auto schedule = make_schedule(
      "LRRangeTest", {{"lr_range_test_min_lr", 0.5}, {"lr_range_test_step_size", 4}, {"lr_range_test_staircase", true}},
      adam_groups());
  for (std::int64_t k = 0; k < 12; ++k) EXPECT_EQ(lr_at(*schedule, k), 0.5 * (1 + static_cast<double>(k / 4)));
}

TEST(LRRangeTest, NegativeRateWarns) {
  const auto schedule = make_schedule("LRRangeTest", {{"lr_range_test_step_rate", -1.0}}, adam_groups());
  EXPECT_THAT(schedule->warnings(), testing::ElementsAre(HasSubstr("negative")));
  EXPECT_LT(lr_at(*schedule, 5000), 0);
}

TEST(LRRangeTest, RefusesValuesOutOfRange) {
  EXPECT_THAT(refusal("LRRangeTest", {{"lr_range_test_step_size", 10.0}}), HasSubstr("write 10"));
  EXPECT_THAT(refusal("LRRangeTest", {{"lr_range_test_step_size", 0}}),
              HasSubstr("lr_range_test_step_size: expected an integer >= 1"));
  EXPECT_THAT(refusal("LRRangeTest", {{"lr_range_test_min_lr", ParamValue::List{0.1}}}, 2),
              HasSubstr("1 entries, the optimizer has 2 parameter groups"));
}

}  // namespace
}  // namespace lockstep::sched
