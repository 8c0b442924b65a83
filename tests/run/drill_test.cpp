#include "run/drill.hpp"

#include <cmath>
#include <cstdlib>

#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

/// Sets LOCKSTEP_DRILL while it lives.
struct Asked {
  explicit Asked(const char* text) { setenv("LOCKSTEP_DRILL", text, 1); }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;
  ~Asked() { unsetenv("LOCKSTEP_DRILL"); }
};

TEST(Drill, IsNothingUnlessAskedFor) { EXPECT_EQ(drill_from_environment().desync_rank, std::nullopt); }

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
      std::vector<sched::GroupValues> expected(2), values(2);
      plain->values_at(update, expected);
      tampered->values_at(update, values);
      if (update == step) expected[0].lr = std::nextafter(expected[0].lr, 1.0);
      EXPECT_EQ(values, expected) << "step " << step << ", update " << update;
    }
  }
}

}  // namespace
}  // namespace lockstep::run
