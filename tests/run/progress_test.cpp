#include "run/progress.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace lockstep::run {
namespace {

TEST(Progress, DurationsAreMinutesAndSecondsWithHoursInFront) {
  EXPECT_EQ(duration_text(0), "0:00");
  EXPECT_EQ(duration_text(0.2), "0:01");
  EXPECT_EQ(duration_text(59.5), "1:00");
  EXPECT_EQ(duration_text(187), "3:07");
  EXPECT_EQ(duration_text(3600), "1:00:00");
  EXPECT_EQ(duration_text(3729), "1:02:09");
  EXPECT_EQ(duration_text(100 * 3600.0), "100:00:00");
}

TEST(Progress, NumbersFromAThousandOnHaveALetter) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(999), "999");
  EXPECT_EQ(short_number(1000), "1.0k");
  EXPECT_EQ(short_number(21345), "21.3k");
  EXPECT_EQ(short_number(1234567), "1.23M");
  EXPECT_EQ(short_number(2.5e9), "2.50G");
  // What rounds up to the next unit is written in it.
  EXPECT_EQ(short_number(999.7), "1.0k");
  EXPECT_EQ(short_number(999960), "1.00M");
  EXPECT_EQ(short_number(999999999), "1.00G");
}

/// What goes to standard output, which is no terminal while gtest captures it.
template <class Body>
std::string printed(const Body& body) {
  ::testing::internal::CaptureStdout();
  body();
  return ::testing::internal::GetCapturedStdout();
}

StepMetrics metrics_of(std::int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 1.25;
  metrics.lr = {1e-3};
  metrics.items_per_s = 21345;
  return metrics;
}

TEST(Progress, EveryZeroPrintsNoStepsButStillNotes) {
  const std::string text = printed([] {
    Progress progress(0, 25, 0, true);
    for (std::int64_t step = 1; step <= 25; ++step) progress.step(metrics_of(step));
    progress.note("checkpoint step-25");
  });

  EXPECT_EQ(text, "checkpoint step-25\n");
}

TEST(Progress, PlainLinesWithoutATerminal) {
  const std::string text = printed([] {
    Progress progress(0, 25, 10, true);
    for (std::int64_t step = 1; step <= 25; ++step) progress.step(metrics_of(step));
  });
  // The first, every tenth, the last.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("step  1/25"), std::string::npos) << text;
  EXPECT_NE(text.find("step 10/25  40%"), std::string::npos) << text;
  EXPECT_NE(text.find("step 25/25 100%"), std::string::npos) << text;
  for (const char* part : {"eta", "loss 1.2500", "lr 1.000e-03", "21.3k tokens/s"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
}

TEST(Progress, ALineDropsWhatMattersLeastUntilItFits) {
  const auto line = [](std::size_t columns) { return step_line(metrics_of(500), 2000, 175, columns); };

  EXPECT_EQ(line(0), "step  500/2000  25%  eta    2:55  loss 1.2500  lr 1.000e-03  norm 0.000   21.3k tokens/s");
  EXPECT_EQ(line(120), line(0));
  EXPECT_EQ(line(80), "step  500/2000  25%  eta    2:55  loss 1.2500  lr 1.000e-03   21.3k tokens/s");
  EXPECT_EQ(line(70), "step  500/2000  25%  eta    2:55  loss 1.2500   21.3k tokens/s");
  EXPECT_EQ(line(60), "step  500/2000  25%  eta    2:55  loss 1.2500");
  EXPECT_EQ(line(40), "step  500/2000  25%  loss 1.2500");
  EXPECT_EQ(line(30), "step  500/2000  loss 1.2500");
  EXPECT_EQ(line(20), "step  500/2000");
  EXPECT_EQ(line(9), "step  500");
}

TEST(Progress, ALineFitsWhateverItSays) {
  StepMetrics metrics = metrics_of(99999999);
  metrics.loss = 123456.789;
  metrics.skipped = true;
  metrics.loss_scale = 1e38;
  metrics.items_per_s = 1e12;
  for (std::size_t columns = 1; columns <= 200; ++columns)
    EXPECT_LE(step_line(metrics, 100000000, 1e9, columns).size(), columns);
}

TEST(Progress, AResumedRunSaysItsFirstStep) {
  const std::string text = printed([] {
    Progress progress(15, 25, 10, true);
    for (std::int64_t step = 16; step <= 25; ++step) progress.step(metrics_of(step));
  });
  EXPECT_EQ(text.find("step 16/25"), 0U) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
}

TEST(Progress, NotesAndSkippedStepsHaveLinesOfTheirOwn) {
  const std::string text = printed([] {
    Progress progress(0, 5, 1, true);
    StepMetrics metrics = metrics_of(1);
    metrics.skipped = true;
    metrics.loss_scale = 65536;
    progress.step(metrics);
    progress.note("checkpoint saved");
  });
  EXPECT_NE(text.find("skipped, loss scale was 65536"), std::string::npos) << text;
  EXPECT_NE(text.find("checkpoint saved\n"), std::string::npos) << text;
}

TEST(Progress, OtherRanksAreSilent) {
  EXPECT_EQ(printed([] {
              Progress progress(0, 2, 1, false);
              progress.step(metrics_of(1));
              progress.step(metrics_of(2));
              progress.note("nothing");
            }),
            "");
}

}  // namespace
}  // namespace lockstep::run
