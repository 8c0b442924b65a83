#include "apps/lr_command.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/lr_curve.hpp"
#include "core/error.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::vector<sched::GroupInitial> adam = {{{.lr = 0.5, .beta1 = 0.9, .beta2 = 0.999}, true}};
const std::vector<sched::GroupInitial> sgd = {{{.lr = 0.1, .momentum = 0.9}, false}};
const config::Params warmup = {{"warmup_min_lr", 0.001}, {"warmup_max_lr", 0.01}, {"warmup_num_steps", 100}};

TEST(LrCsv, RowsAreWhatEachUpdateUses) {
  const auto schedule = sched::make_schedule("WarmupLR", warmup, adam);
  const std::string csv = lr_report(*schedule, {.updates = 3, .format = LrFormat::csv});
  EXPECT_EQ(csv,
            "update,group,lr,beta1,beta2\n"
            "0,0,0.001,0.9,0.999\n"
            "1,0,0.001,0.9,0.999\n"
            "2,0,0.0023546349804879152,0.9,0.999\n");
}

TEST(LrCsv, SgdHasMomentum) {
  const auto schedule = sched::make_schedule("StepDecay", {{"step_size", 1}, {"gamma", 0.5}}, sgd);
  EXPECT_EQ(lr_report(*schedule, {.updates = 2, .format = LrFormat::csv}),
            "update,group,lr,momentum\n0,0,0.1,0.9\n1,0,0.05,0.9\n");
}

TEST(LrCsv, NumbersReadBackExactly) {
  const auto schedule = sched::make_schedule("WarmupLR", warmup, adam);
  std::istringstream csv(lr_report(*schedule, {.updates = 120, .format = LrFormat::csv}));
  std::string line;
  std::getline(csv, line);
  std::vector<StepValues> values(1);
  for (std::int64_t k = 0; k < 120; ++k) {
    ASSERT_TRUE(std::getline(csv, line));
    schedule->values_at(k, values);
    const std::size_t at = line.find(',', line.find(',') + 1) + 1;
    EXPECT_EQ(std::strtod(line.c_str() + at, nullptr), values[0].lr) << line;
  }
}

TEST(LrJson, HoldsTheSameNumbers) {
  const auto schedule = sched::make_schedule("WarmupLR", warmup, adam);
  const auto json = nlohmann::json::parse(
      lr_report(*schedule, {.updates = 3, .format = LrFormat::json, .group_names = {"a \"quoted\" name"}}));
  EXPECT_EQ(json["scheduler"], "WarmupLR");
  EXPECT_EQ(json["groups"][0]["name"], "a \"quoted\" name");
  EXPECT_EQ(json["groups"][0]["lr"], nlohmann::json({0.001, 0.001, 0.0023546349804879152}));
  EXPECT_EQ(json["groups"][0]["beta2"].size(), 3U);
}

TEST(LrText, SaysWhatSurprises) {
  const auto schedule = sched::make_schedule("WarmupLR", {{"warmup_type", "odd"}}, adam);
  const std::string text = lr_report(*schedule, {.updates = 100});
  EXPECT_THAT(text, HasSubstr("the first two updates use warmup_min_lr 0"));
  EXPECT_THAT(text, HasSubstr("warning: warmup_type 'odd'"));
  EXPECT_THAT(text, HasSubstr("the first 2 updates use lr 0"));
  EXPECT_THAT(text, HasSubstr("beta1 stays 0.9"));
}

TEST(LrText, ChartHasSixteenRowsAndBothAxes) {
  const std::string chart = terminal_chart({{"a", {0, 1, 2, 3}}});
  EXPECT_EQ(std::count(chart.begin(), chart.end(), '\n'), 18);
  EXPECT_THAT(chart, StartsWith("        3 "));
  EXPECT_THAT(chart, HasSubstr("update"));
}

TEST(LrText, FlatAndSingleValuesHaveAChartToo) {
  EXPECT_THAT(terminal_chart({{"zero", {0, 0}}}), HasSubstr("\u28c0"));  // the lowest dots
  EXPECT_FALSE(terminal_chart({{"one", {0.5}}}).empty());
  EXPECT_THAT(svg_chart({{"one", {0.5}}}, "t"), HasSubstr("<polyline"));
}

TEST(LrPlot, WritesOneLineAGroup) {
  const auto file = std::filesystem::temp_directory_path() / ("lockstep_lr_" + std::to_string(getpid()) + ".svg");
  auto groups = adam;
  groups.push_back(adam[0]);
  const auto schedule = sched::make_schedule("WarmupLR", warmup, groups);
  lr_report(*schedule, {.updates = 5000, .group_names = {"rest", "<bias> & more"}, .plot = file});
  std::ifstream in(file);
  std::ostringstream svg;
  svg << in.rdbuf();
  std::filesystem::remove(file);
  EXPECT_THAT(svg.str(), StartsWith("<svg xmlns="));
  EXPECT_THAT(svg.str(), HasSubstr("&lt;bias&gt; &amp; more"));
  std::size_t lines = 0;
  for (std::size_t at = svg.str().find("<polyline"); at != std::string::npos; at = svg.str().find("<polyline", at + 1))
    ++lines;
  EXPECT_EQ(lines, 2U);
}

TEST(LrErrors, AreTheUsersToCorrect) {
  const auto schedule = sched::make_constant(adam);
  const auto report = [&](ErrorKind kind, const LrRequest& request) {
    return testing::error_text(kind, [&] { (void)lr_report(*schedule, request); });
  };
  EXPECT_EQ(report(ErrorKind::config, {.updates = 0}), "lockstep lr: --updates is 0, but must be at least 1");
  EXPECT_EQ(report(ErrorKind::environment, {.updates = 2, .plot = "/nonexistent/folder/x.svg"}),
            "lockstep lr: cannot write the picture /nonexistent/folder/x.svg");
  EXPECT_EQ(testing::error_text(ErrorKind::config, [] { (void)parse_lr_format("xml"); }),
            "--format xml: expected text, csv or json");
  EXPECT_EQ(parse_lr_format("csv"), LrFormat::csv);
}

}  // namespace
}  // namespace lockstep
