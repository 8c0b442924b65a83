#include "run/drill.hpp"

#include <cmath>

#include "tests/run/asked.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

TEST(Drill, IsNothingUnlessAskedFor) {
  EXPECT_EQ(drill_from_environment().desync_rank, std::nullopt);
  const Asked asked("");
  EXPECT_EQ(drill_from_environment().desync_rank, std::nullopt);
}

TEST(Drill, ReadsWhatIsAsked) {
  {
    const Asked asked("desync@rank=2,step=40");
    EXPECT_EQ(drill_from_environment().desync_rank, 2);
    EXPECT_EQ(drill_from_environment().desync_step, 40);
  }
  const Asked asked("slow_save@seconds=1.5");
  EXPECT_EQ(drill_from_environment().save_delay.count(), 1.5);
  EXPECT_EQ(drill_from_environment().desync_rank, std::nullopt);
}

TEST(Drill, SaysWhatItUnderstands) {
  const Asked asked("desync@rank=x");
  const std::string text = error_text(ErrorKind::config, [] { (void)drill_from_environment(); });
  EXPECT_NE(text.find("desync@rank=x"), std::string::npos) << text;
  EXPECT_NE(text.find("desync@rank=R,step=S"), std::string::npos) << text;
}

TEST(OffByOneBit, ChangesOneUpdateOfTheFirstGroupByOneBit) {
  const std::shared_ptr<const sched::Schedule> plain =
      sched::make_schedule("WarmupLR", {{"warmup_max_lr", 0.5}, {"warmup_num_steps", std::int64_t{8}}},
                           {testing::adam_group(0.1), testing::adam_group(0.2)});
  for (const std::int64_t step : {0, 1, 5}) {
    const auto tampered = off_by_one_bit(plain, step);
    ASSERT_EQ(tampered->groups(), 2U);
    for (std::int64_t update = 0; update < 10; ++update) {
      std::vector<StepValues> expected(2), values(2);
      plain->values_at(update, expected);
      tampered->values_at(update, values);
      if (update == step) expected[0].lr = std::nextafter(expected[0].lr, 1.0);
      EXPECT_EQ(values, expected) << "step " << step << ", update " << update;
    }
  }
}

}  // namespace
}  // namespace lockstep::run
