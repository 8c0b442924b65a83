#include "run/rehearsal.hpp"

#include <gmock/gmock.h>

namespace lockstep::run {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Rehearsal, TheIntervalLosesLeastTimeToSavesAndToWhatIsDoneAgain) {
  const double save = 2, mtbf = 10'000;
  const auto lost = [&](double interval) {
    return save / interval + interval / (2 * mtbf);
  };  // Young's sum, to first order

  const double best = checkpoint_interval(save, mtbf);

  EXPECT_DOUBLE_EQ(best, 200);
  EXPECT_LT(lost(best), lost(best * 0.9));
  EXPECT_LT(lost(best), lost(best * 1.1));
}

TEST(Rehearsal, AJobNeedsThreeIntervalsAndASecond) {
  EXPECT_EQ(steps_for_rehearsal(20, 0.5), 62);
  EXPECT_EQ(steps_for_rehearsal(20, 0.001), 1060);
}

TEST(Rehearsal, ItsReportCountsKillsByKindAndSaysWhatFailed) {
  Rehearsal rehearsal;
  rehearsal.step_seconds = 0.1;
  rehearsal.save_seconds = {0.3, 0.1, 0.2};
  rehearsal.lost_steps = {1, 9, 4};
  rehearsal.folder = "there";
  rehearsal.kills = {{KillMoment::training, false}, {KillMoment::saving, true}, {KillMoment::saving, false}};
  rehearsal.recovery_seconds = {0.5, 1.5};
  rehearsal.equal_lines = 40;

  const std::string good = to_text(rehearsal);
  rehearsal.failures = {"the parameters differ"};
  const std::string bad = to_text(rehearsal);

  EXPECT_THAT(good,
              HasSubstr("kills     3: training 1 (a rank 1, mpirun 0), saving 2 (a rank 1, mpirun 1), starting 0"));
  EXPECT_THAT(good, HasSubstr("lost      median 4 steps of a crash, at most 9\n"));
  EXPECT_THAT(good, HasSubstr("median 1 s, at most 1.5 s\n"));
  EXPECT_THAT(good, HasSubstr("a save takes 200 ms (median of 3)"));
  EXPECT_THAT(good, HasSubstr("\n          379 (37.9 s) with a failure an hour\n"));  // sqrt(2 x 0.2 x 3600) = 37.95
  EXPECT_THAT(good, HasSubstr("\nPASS      40 lines"));
  EXPECT_THAT(good, Not(HasSubstr("FAIL")));
  EXPECT_THAT(bad, HasSubstr("failure   the parameters differ\nFAIL      1 failure; both runs are in there\n"));
  EXPECT_THAT(bad, Not(HasSubstr("PASS")));
}

TEST(ChildJob, ProgramsAreFoundAsAShellFindsThem) {
  EXPECT_THAT(program_in_path("sh").value_or(""), ::testing::EndsWith("/sh"));
  EXPECT_EQ(program_in_path("no-such-program-of-ours"), std::nullopt);
}

}  // namespace
}  // namespace lockstep::run
