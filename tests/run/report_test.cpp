#include "run/report.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.hpp"
#include "run/compare.hpp"
#include "run/metrics.hpp"
#include "run/report_chart.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using testing::ScratchFolder;

StepMetrics step_of(std::int64_t step) {
  StepMetrics m;
  m.step = step;
  m.update = step;
  m.loss = 1 + 100.0 / static_cast<double>(step);
  m.lr = {0.001, 0.001, 0.002};
  m.grad_norm = 2;
  m.items_per_s = 1000;
  m.step_ms = 5;
  return m;
}

/// A run's folder as the trainer leaves it.
class ReportTest : public ::testing::Test {
 protected:
  std::string run(const std::string& name, const std::vector<StepMetrics>& steps,
                  const std::string& more = "train_batch_size: 8\n") {
    const std::string path = folder_ / name;
    std::filesystem::create_directories(path);
    std::string text;
    for (const StepMetrics& m : steps) text += to_json(m) + "\n";
    testing::write_text(path + "/metrics.jsonl", text);
    testing::write_text(path + "/job.yaml",
                        "model: {type: mlp}\ndata: {type: clusters}\nrun: {name: " + name + ", steps: 100}\n" + more);
    append_start(path, {.step = 0, .ranks = "2 ranks (mpi) x 1 thread", .batch = "8", .model = "mlp <b>", .data = "d"});
    return path;
  }
  static std::vector<StepMetrics> steps(std::int64_t count) {
    std::vector<StepMetrics> all;
    for (std::int64_t i = 1; i <= count; ++i) all.push_back(step_of(i));
    return all;
  }
  static std::string error_of(const std::string& path, ErrorKind kind) {
    try {
      (void)read_run(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "read: " << path;
    return {};
  }
  static int count_of(const std::string& text, const std::string& part) {
    int count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
    return count;
  }

  ScratchFolder folder_;
};

TEST_F(ReportTest, ReadsBackWhatMetricsWrote) {
  std::vector<StepMetrics> all = steps(3);
  all[1].skipped = true;
  all[1].loss = NAN;
  all[2].val_loss = 0.5;

  const RunRecord record = read_run(run("r", all) + "/");

  ASSERT_EQ(record.rows.size(), 3U);
  EXPECT_EQ(record.item, "tokens");
  EXPECT_EQ(record.rows[0].loss, 101);
  EXPECT_EQ(record.rows[0].loss_bits, "42ca0000");  // 101 as a float
  EXPECT_EQ(record.rows[0].lr, (std::vector<double>{0.001, 0.001, 0.002}));
  EXPECT_TRUE(record.rows[1].skipped);
  EXPECT_TRUE(std::isnan(record.rows[1].loss));
  EXPECT_EQ(record.rows[2].val_loss, 0.5);
  ASSERT_EQ(record.starts.size(), 1U);
  EXPECT_EQ(record.starts[0].ranks, "2 ranks (mpi) x 1 thread");
  EXPECT_FALSE(record.starts[0].version.empty());
  EXPECT_FALSE(record.starts[0].build.empty());
  EXPECT_EQ(record.starts[0].time.size(), std::string("2026-01-01T00:00:00Z").size());
}

TEST_F(ReportTest, StepsThatWereDoneAgainCountOnce) {
  std::vector<StepMetrics> all = steps(10);
  StepMetrics again = step_of(7);
  again.loss = 5;
  all.push_back(again);

  const RunRecord record = read_run(run("r", all));

  ASSERT_EQ(record.rows.size(), 7U);
  EXPECT_EQ(record.rows.back().loss, 5);
  ASSERT_EQ(record.rollbacks.size(), 1U);
  EXPECT_EQ(record.rollbacks[0].from, 10);
  EXPECT_EQ(record.rollbacks[0].to, 7);
  EXPECT_NE(report_html(record).find("Steps 7 to 10 were done again"), std::string::npos);
}

TEST_F(ReportTest, SummarySaysTheEndAndTheBest) {
  std::vector<StepMetrics> all = steps(4);
  all[0].val_loss = 3;
  all[1].val_loss = 1;
  all[3].val_loss = 2;
  all[2].items_per_s = 1;  // a slow step moves no median
  all[2].skipped = true;

  const RunSummary sum = summary_of(read_run(run("r", all)));

  EXPECT_EQ(sum.steps, 4);
  EXPECT_EQ(sum.skipped, 1);
  EXPECT_EQ(sum.last_loss, 26);
  EXPECT_EQ(sum.last_val_loss, 2);
  EXPECT_EQ(sum.best_val_loss, 1);
  EXPECT_EQ(sum.best_step, 2);
  EXPECT_EQ(sum.items_per_s, 1000);
  EXPECT_DOUBLE_EQ(sum.seconds, 0.02);
}

TEST_F(ReportTest, PageNeedsNothingElseAndEscapesWhatItShows) {
  std::vector<StepMetrics> all = steps(400);
  all[10].skipped = true;
  all[20].loss = INFINITY;
  all[99].val_loss = 2;
  all[399].val_loss = 1;
  const std::string path = run("r", all, "train_batch_size: 8\ngradient_clipping: 3\n");
  append_start(path, {.step = 200, .ranks = "1 rank <script>", .model = "mlp <b>"});

  const std::string html = report_html(read_run(path));

  EXPECT_TRUE(html.starts_with("<!DOCTYPE html>"));
  for (const char* outside : {"http:", "https:", "<script", "<link", "src=", "url(", "@import"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  EXPECT_EQ(count_of(html, "<svg "), 4) << "loss, lr, norm, throughput; the scale never moves";
  EXPECT_EQ(count_of(html, "</svg>"), 4);
  EXPECT_EQ(count_of(html, "class=\"skip\" d=\"M"), 2) << "the step, and its sample in the legend";
  EXPECT_EQ(count_of(html, "class=\"bad\" d=\"M"), 2);
  EXPECT_EQ(count_of(html, "class=\"resume\" d=\"M"), 2);
  EXPECT_NE(html.find("group 0, 1"), std::string::npos) << "equal rates are one line with both names";
  EXPECT_NE(html.find("gradient_clipping 3"), std::string::npos);
  EXPECT_NE(html.find("mlp &lt;b&gt;"), std::string::npos);
  EXPECT_NE(html.find("1 rank &lt;script&gt;"), std::string::npos);
  EXPECT_NE(html.find("log scale"), std::string::npos) << "a loss from 101 to 1.25";
  EXPECT_NE(html.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_NE(html.find("\ntrain_batch_size: 8\ngradient_clipping: 3\n</pre>"), std::string::npos) << "as it stands";
}

TEST_F(ReportTest, ALossScaleThatMovesHasAChart) {
  std::vector<StepMetrics> all = steps(10);
  for (StepMetrics& m : all) m.loss_scale = m.step < 5 ? 65536 : 1024;
  EXPECT_NE(report_html(read_run(run("r", all))).find(">Loss scale<"), std::string::npos);
}

TEST_F(ReportTest, LongRunsKeepPeaksAndStaySmall) {
  std::vector<StepMetrics> all = steps(50'000);
  all[31'415].grad_norm = 77;
  const RunRecord record = read_run(run("r", all));

  const std::string html = report_html(record);

  EXPECT_LT(html.size(), 600'000U);
  // The peak is the greatest value of its chart, so its pixel is the top one that the chart has.
  Chart chart{.title = "t", .unit = {}, .from_zero = true, .lines = {}, .marks = {}, .level = {}, .level_name = {}};
  ChartLine line{.name = "n", .x = {}, .y = {}};
  for (const MetricsRow& row : record.rows) {
    line.x.push_back(static_cast<double>(row.step));
    line.y.push_back(row.grad_norm);
  }
  chart.lines = {line};
  EXPECT_NE(chart_svg(chart).find(" 50.6L"), std::string::npos) << "40 + 222 * 0.05 / 1.05";
}

TEST_F(ReportTest, WritesBesideTheRunOrWhereAsked) {
  const std::string path = run("r", steps(5));

  const std::string said = write_report(path);
  (void)write_report(path, folder_ / "page.html");

  EXPECT_EQ(said, path + "/report.html: 5 steps of " + path + ", loss 21.0000\n");
  EXPECT_EQ(testing::text_of(path + "/report.html"), testing::text_of(folder_ / "page.html"));
  try {
    (void)write_report(path, folder_ / "none/page.html");
    ADD_FAILURE() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::environment);
    EXPECT_NE(std::string(error.what()).find("--output FILE"), std::string::npos) << error.what();
  }
}

TEST_F(ReportTest, FoldersThatAreNoRunsAreToldWithWhatIs) {
  const std::string path = run("r", {});
  EXPECT_NE(error_of(path, ErrorKind::data).find("holds no line of metrics yet"), std::string::npos);
  (void)run("other", steps(1));
  const std::string folder = folder_.path().string();
  EXPECT_NE(error_of(folder, ErrorKind::config).find("there is " + (folder_ / "other")), std::string::npos)
      << "runs in the folder that was given";
  EXPECT_NE(error_of(folder + "/none", ErrorKind::config).find("no such folder"), std::string::npos);
  EXPECT_NE(error_of(path + "/job.yaml", ErrorKind::config).find("it is a file"), std::string::npos);
}

TEST_F(ReportTest, ADamagedLineIsCountedAndAHalfOneAtTheEndIsNot) {
  const std::string path = run("r", steps(2));
  testing::write_text(path + "/metrics.jsonl",
                      "nonsense\n" + to_json(step_of(1)) + "\n" + to_json(step_of(2)) + "\n{\"step\":3,\"lo");
  const RunRecord record = read_run(path);
  EXPECT_EQ(record.rows.size(), 2U);
  EXPECT_EQ(record.bad_lines, 1);
}

TEST_F(ReportTest, CompareFindsTheFirstStepWithOtherBits) {
  const std::string a = run("a", steps(20));
  std::vector<StepMetrics> other = steps(20);
  other[11].loss = std::nextafterf(static_cast<float>(other[11].loss), 0.0F);
  other[15].loss += 0.5;
  const std::string b = run("b", other, "train_batch_size: 16\n");

  const Comparison same = compare_runs(a, run("c", steps(15)));
  const Comparison differ = compare_runs(a, b);

  EXPECT_TRUE(same.same) << same.text;
  EXPECT_NE(same.text.find("the same bits in all 15 steps that both have"), std::string::npos) << same.text;
  EXPECT_FALSE(differ.same);
  EXPECT_NE(differ.text.find("first other bits are at step 12; 2 of 20 common steps differ, by 0.5 at most"),
            std::string::npos)
      << differ.text;
  EXPECT_NE(differ.text.find("train_batch_size  8"), std::string::npos) << differ.text;
  EXPECT_NE(differ.text.find("run.name"), std::string::npos) << differ.text;
}

TEST_F(ReportTest, CompareOfRunsWithoutACommonStepIsNoEquality) {
  const std::string a = run("a", {step_of(1)}), b = run("b", {step_of(2)});
  const Comparison comparison = compare_runs(a, b);
  EXPECT_FALSE(comparison.same);
  EXPECT_NE(comparison.text.find("no step that both runs have"), std::string::npos);
}

TEST(ReportChart, TicksAreShortAndExact) {
  EXPECT_EQ(tick_text(0), "0");
  EXPECT_EQ(tick_text(0.0025), "0.0025");
  EXPECT_EQ(tick_text(2000), "2000");
  EXPECT_EQ(tick_text(20000), "20k");
  EXPECT_EQ(tick_text(1.5e6), "1.5M");
  EXPECT_EQ(tick_text(6e-5), "6e-05");
}

TEST(ReportChart, OnlyPositiveValuesOfAWideRangeGoOnALogScale) {
  Chart chart{.title = "t",
              .unit = {},
              .may_be_log = true,
              .lines = {{.name = "a", .x = {1, 2}, .y = {1, 100}}},
              .marks = {},
              .level = {},
              .level_name = {}};
  EXPECT_TRUE(is_log(chart));
  chart.lines[0].y = {0, 100};
  EXPECT_FALSE(is_log(chart));
  chart.lines[0].y = {50, 100};
  EXPECT_FALSE(is_log(chart));
}

TEST(ReportChart, NothingToShowIsStillAChart) {
  Chart chart{.title = "t",
              .unit = {},
              .lines = {{.name = "a", .x = {1, 2}, .y = {NAN, NAN}}},
              .marks = {},
              .level = {},
              .level_name = {}};
  EXPECT_EQ(chart_svg(chart).find("nan"), std::string::npos);
  chart.lines[0].y = {3, NAN};
  EXPECT_NE(chart_svg(chart).find("<circle"), std::string::npos) << "a lone value is a dot";
}

}  // namespace
}  // namespace lockstep::run
