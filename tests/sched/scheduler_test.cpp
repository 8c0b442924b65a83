#include "tests/support/scheduler.hpp"

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

const Params ten_steps = {{"warmup_max_lr", 1e-3}, {"warmup_num_steps", 10}, {"warmup_type", "linear"}};

TEST(Scheduler, SavedIndexContinuesTheSameCurve) {
  for (const Case& c : cases()) {
    Scheduler straight(c.type, c.params, adam_groups());
    for (int k = 0; k < 6; ++k) straight.step();
    Scheduler resumed(c.type, c.params, adam_groups());
    resumed.load(straight.state());
    for (int k = 0; k < 30; ++k) {
      straight.step();
      resumed.step();
      ASSERT_EQ(straight.groups()[0].lr, resumed.groups()[0].lr) << c.type << ", step " << k;
      ASSERT_EQ(straight.groups()[0].beta1, resumed.groups()[0].beta1) << c.type << ", step " << k;
    }
  }
}

TEST(Scheduler, LoadWritesNothing) {
  Scheduler scheduler("WarmupLR", ten_steps, adam_groups());
  scheduler.load(6);
  EXPECT_EQ(scheduler.groups()[0].lr, 0.0);
  EXPECT_EQ(scheduler.last_lr(), std::vector<double>{0.0});
  EXPECT_EQ(scheduler.get_lr(), std::vector<double>{1e-3 * (6.0 / 10.0)});
}

TEST(Scheduler, StepToAnIndexMayGoBack) {
  Scheduler scheduler("WarmupLR", ten_steps, adam_groups());
  scheduler.step(7);
  EXPECT_EQ(scheduler.groups()[0].lr, 1e-3 * (7.0 / 10.0));
  scheduler.step(2);
  EXPECT_EQ(scheduler.state(), 2);
  EXPECT_EQ(scheduler.groups()[0].lr, 1e-3 * (2.0 / 10.0));
}

TEST(Scheduler, LastLrNeedsAStepWhereDeepSpeedsDoes) {
  Scheduler one_cycle("OneCycle", {{"cycle_min_lr", 0.1}, {"cycle_max_lr", 1.0}}, adam_groups());
  EXPECT_NE(refusal([&] { (void)one_cycle.last_lr(); }).find("step()"), std::string::npos);
  one_cycle.step();
  EXPECT_EQ(one_cycle.last_lr(), one_cycle.get_lr());

  Scheduler resumed("WarmupLR", {{"warmup_num_steps", 10}, {"last_batch_iteration", 4}}, adam_groups());
  EXPECT_NE(refusal([&] { (void)resumed.last_lr(); }).find("step()"), std::string::npos);
}

TEST(Scheduler, RebuildStartsFromTheGroupsAsTheyStand) {
  Scheduler scheduler("WarmupCosineLR", {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"warmup_type", "linear"}},
                      adam_groups());
  scheduler.step(2);
  const double scaled = scheduler.groups()[0].lr;
  scheduler.rebuild(
      {{"total_num_steps", 20}, {"warmup_num_steps", 4}, {"warmup_type", "linear"}, {"last_batch_iteration", 2}});
  EXPECT_EQ(scheduler.state(), 2);
  EXPECT_EQ(scheduler.groups()[0].lr, scaled);
  scheduler.step();
  EXPECT_EQ(scheduler.groups()[0].lr, scaled * 0.75);  // scaled twice, as DeepSpeed does
}

TEST(Scheduler, AFailedRebuildChangesNothing) {
  Scheduler scheduler("WarmupLR", ten_steps, adam_groups());
  scheduler.step(5);
  EXPECT_NE(refusal([&] { scheduler.rebuild({{"warmup_num_steps", 0}}); }).find("warmup_num_steps"), std::string::npos);
  EXPECT_EQ(scheduler.state(), 5);
  EXPECT_EQ(scheduler.get_lr(), scheduler.last_lr());
}

}  // namespace
}  // namespace lockstep::sched
