#include "run/step_times.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lockstep::run {
namespace {

TEST(StepTimes, TheBreakdownIsTheMean) {
  StepTimes sum;
  sum += {.data = 0.25, .forward = 2, .backward = 4, .step = 1};
  sum += {.data = 0.25, .forward = 4, .backward = 8, .step = 2};
  EXPECT_EQ(breakdown_text(sum, 2), "time (ms) | fwd: 3.00 | bwd: 6.00 | step: 1.50 | data: 0.25");
}

TEST(StepTimes, StepsInFlightKeepTheirOwn) {
  StepClock clock;
  clock.begin_step();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  clock.lap(&StepTimes::forward);
  clock.lap(&StepTimes::backward);
  clock.begin_step();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  clock.lap(&StepTimes::step);

  const StepTimes first = clock.finish_step(), second = clock.finish_step();

  // A sleep takes at least as long as it was told to.
  EXPECT_GE(first.forward, 5);
  EXPECT_EQ(first.step, 0);
  EXPECT_GE(second.step, 5);
  EXPECT_EQ(second.forward, 0);
  EXPECT_EQ(clock.breakdown(), breakdown_text(StepTimes(first) += second, 2));
}

}  // namespace
}  // namespace lockstep::run
