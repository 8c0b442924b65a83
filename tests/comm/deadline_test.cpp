#include "comm/deadline.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace lockstep::comm {
namespace {

using std::chrono::milliseconds;

TEST(Deadline, PassesAfterTheTimeThatWasLookedAt) {
  const auto start = Deadline::Clock::now();
  Deadline deadline(Seconds(2), start);

  for (int ms = 100; ms <= 2000; ms += 100) EXPECT_FALSE(deadline.passed(start + milliseconds(ms))) << ms;

  EXPECT_TRUE(deadline.passed(start + milliseconds(2100)));
}

TEST(Deadline, TimeInWhichTheProcessWasStoppedDoesNotCount) {
  const auto start = Deadline::Clock::now();
  Deadline deadline(Seconds(2), start);
  EXPECT_FALSE(deadline.passed(start + milliseconds(500)));
  const auto awake = start + std::chrono::hours(1);

  EXPECT_FALSE(deadline.passed(awake)) << "an hour's stop is nobody's fault";
  EXPECT_FALSE(deadline.passed(awake + milliseconds(900)));
  EXPECT_FALSE(deadline.passed(awake + milliseconds(1400)));

  EXPECT_TRUE(deadline.passed(awake + milliseconds(1600))) << "the 1.5 s that were left";
}

TEST(Deadline, AMachineOnWhichEveryLookIsSlowStillGivesUp) {
  const auto start = Deadline::Clock::now();
  Deadline deadline(Seconds(60), start);
  auto now = start;

  for (int look = 0; look < 60; ++look)
    EXPECT_FALSE(deadline.passed(now += milliseconds(1500))) << "look " << look << " alone may be a stop";

  EXPECT_TRUE(deadline.passed(now += milliseconds(100))) << "after 90 s of slow looks";
}

TEST(Deadline, AnyTimeoutIsATime) {
  for (const double forever : {1e300, std::numeric_limits<double>::infinity(), 9.3e9}) {
    Deadline deadline{Seconds(forever)};
    EXPECT_FALSE(deadline.passed()) << forever;
  }
  for (const double never : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    const auto start = Deadline::Clock::now();
    Deadline deadline(Seconds(never), start);
    EXPECT_TRUE(deadline.passed(start + milliseconds(1))) << never;
  }
}

}  // namespace
}  // namespace lockstep::comm
