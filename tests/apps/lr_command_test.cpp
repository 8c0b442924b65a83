#include "apps/lr_command.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/lr_curve.hpp"
#include "core/error.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::vector<sched::GroupInitial> adam = {{{.lr = 0.5, .beta1 = 0.9, .beta2 = 0.999}, true}};
const std::vector<sched::GroupInitial> sgd = {{{.lr = 0.1, .momentum = 0.9}, false}};
const config::Params warmup = {{"warmup_min_lr", 0.001}, {"warmup_max_lr", 0.01}, {"warmup_num_steps", 100}};

/// The d="..." of the first curve.
std::string path_of_curve(const std::string& svg) {
  const std::string mark = "class=\"curve\" d=\"";
  const std::size_t begin = svg.find(mark) + mark.size();
  return svg.substr(begin, svg.find('"', begin) - begin);
}

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

TEST(LrJson, IsJsonWhereNumbersAreNotFinite) {
  const auto schedule = sched::make_schedule("ExponentialDecay", {{"gamma", 1e200}}, adam);
  const auto json = nlohmann::json::parse(lr_report(*schedule, {.updates = 3, .format = LrFormat::json}));
  EXPECT_EQ(json["groups"][0]["lr"], nlohmann::json({0.5, 5e199, nullptr}));
  EXPECT_THAT(json["warnings"][0], HasSubstr("inf at update 2"));
}

TEST(LrText, SaysWhatSurprises) {
  const auto schedule = sched::make_schedule("WarmupLR", {{"warmup_type", "odd"}}, adam);
  const std::string text = lr_report(*schedule, {.updates = 100});
  EXPECT_THAT(text, HasSubstr("the first two updates use warmup_min_lr 0"));
  EXPECT_THAT(text, HasSubstr("warning: warmup_type 'odd'"));
  EXPECT_THAT(text, HasSubstr("the first 2 updates use lr 0"));
  EXPECT_THAT(text, HasSubstr("beta1 stays 0.9"));
}

TEST(LrText, SaysWhereTheRateIsInfinite) {
  const auto schedule = sched::make_schedule("ExponentialDecay", {{"gamma", 1e9}}, adam);
  const std::string text = lr_report(*schedule, {.updates = 60});
  EXPECT_THAT(text, HasSubstr("warning: the learning rate is inf at update 35"));
  EXPECT_THAT(text, HasSubstr("greatest 5e+305 (update 34), last inf; 25 of 60 values are not finite"));
}

TEST(LrText, NamesGroupsThatCoincideTogether) {
  auto groups = adam;
  groups.push_back(adam[0]);
  groups.push_back(adam[0]);
  groups[1].lr = 0.25;
  const auto schedule = sched::make_constant(groups);
  const std::string text = lr_report(*schedule, {.updates = 4, .group_names = {"rest", "bias", "norm"}});
  EXPECT_THAT(text, HasSubstr("\nrest = norm: first 0.5,"));
  EXPECT_THAT(text, HasSubstr("\nbias: first 0.25,"));
}

TEST(LrText, ChartHasSixteenRowsAndBothAxes) {
  const std::string chart = terminal_chart({{{"a"}, {0, 1, 2, 3}}});
  EXPECT_EQ(std::count(chart.begin(), chart.end(), '\n'), 18);
  EXPECT_THAT(chart, StartsWith("        3 "));
  EXPECT_THAT(chart, HasSubstr("update"));
}

TEST(LrText, FlatAndSingleValuesHaveAChartToo) {
  EXPECT_THAT(terminal_chart({{{"zero"}, {0, 0}}}), HasSubstr("\u28c0"));  // the lowest dots
  EXPECT_FALSE(terminal_chart({{{"one"}, {0.5}}}).empty());
  EXPECT_THAT(svg_chart({{{"one"}, {0.5}}}, "t"), HasSubstr("class=\"curve\" d=\"M88.00 "));
}

// The charts only have to end, and to hold no number that a reader of SVG refuses.
TEST(LrCharts, TakeEveryDouble) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double most = std::numeric_limits<double>::max(), least = std::numeric_limits<double>::denorm_min();
  for (const std::vector<double>& values : std::vector<std::vector<double>>{{inf},
                                                                            {nan, nan},
                                                                            {inf, -inf, nan, 1},
                                                                            {1, inf, 2},
                                                                            {most, -most},
                                                                            {least, -least, 0},
                                                                            {1e-310, most, nan}}) {
    std::vector<double> many(5000);
    for (std::size_t k = 0; k < many.size(); ++k) many[k] = values[k * values.size() / many.size()];
    for (const std::vector<double>& drawn : {values, many}) {
      EXPECT_FALSE(terminal_chart({{{"a"}, drawn}}).empty());
      const std::string svg = svg_chart({{{"a"}, drawn}}, "t");
      const std::string drawing = svg.substr(0, svg.find("class=\"curve\""));
      for (const std::string& text : {drawing, path_of_curve(svg)})
        for (const char* word : {"nan", "inf"})
          EXPECT_EQ(text.find(word), std::string::npos) << values[0] << " " << word;
    }
  }
}

TEST(LrPlot, DrawsAStepAsAStep) {
  const std::string svg = svg_chart({{{"a"}, {1, 1, 0.5, 0.5}}}, "t");
  // Three quarters of the way is update 3; the axis is 708 wide from 88 and 320 high up from 372.
  EXPECT_EQ(path_of_curve(svg), "M88.00 52.00H442.00V212.00H796.00");
}

TEST(LrPlot, LeavesAGapWhereAValueIsNotFiniteAndSaysSo) {
  const double inf = std::numeric_limits<double>::infinity();
  const std::string svg = svg_chart({{{"a"}, {1, inf, 0, 0}}}, "t");
  EXPECT_EQ(path_of_curve(svg), "M88.00 52.00H265.00M442.00 372.00H796.00");
  EXPECT_THAT(svg, HasSubstr("inf at update 1: left out"));
}

TEST(LrPlot, DrawsCurvesThatCoincideOnceWithAllNames) {
  testing::ScratchFolder folder;
  auto groups = adam;
  groups.push_back(adam[0]);
  const auto schedule = sched::make_schedule("WarmupLR", warmup, groups);
  lr_report(*schedule, {.updates = 5000, .group_names = {"rest", "<bias> & more"}, .plot = folder / "lr.SVG"});
  const std::string svg = testing::text_of(folder / "lr.SVG");
  EXPECT_THAT(svg, StartsWith("<svg xmlns="));
  EXPECT_THAT(svg, HasSubstr(">rest</text>"));
  EXPECT_THAT(svg, HasSubstr(">&lt;bias&gt; &amp; more</text>"));
  EXPECT_EQ(svg.find("class=\"curve\""), svg.rfind("class=\"curve\""));
}

TEST(LrPlot, DrawsCurvesThatDifferEach) {
  const std::string svg = svg_chart({{{"a"}, {1, 2}}, {{"b"}, {1, 3}}}, "t");
  EXPECT_NE(svg.find("class=\"curve\""), svg.rfind("class=\"curve\""));
}

TEST(LrErrors, AreTheUsersToCorrect) {
  const auto schedule = sched::make_constant(adam);
  const auto report = [&](ErrorKind kind, const LrRequest& request) {
    return testing::error_text(kind, [&] { (void)lr_report(*schedule, request); });
  };
  EXPECT_EQ(report(ErrorKind::config, {.updates = 0}),
            "lockstep lr: --updates is 0, but must be from 1 to 10,000,000 with 1 parameter group");
  EXPECT_EQ(report(ErrorKind::config, {.updates = 20'000'000}),
            "lockstep lr: --updates is 20,000,000, but must be from 1 to 10,000,000 with 1 parameter group");
  EXPECT_EQ(report(ErrorKind::config, {.updates = 2, .plot = "curve.png"}),
            "--plot curve.png: the picture is written as SVG; give it a name that ends in .svg, such as curve.svg");
  EXPECT_THAT(report(ErrorKind::config, {.updates = 2, .plot = "curve"}), HasSubstr("such as curve.svg"));
  EXPECT_EQ(report(ErrorKind::environment, {.updates = 2, .plot = "/nonexistent/folder/x.svg"}),
            "cannot write the picture /nonexistent/folder/x.svg");
  EXPECT_EQ(testing::error_text(ErrorKind::config, [] { (void)parse_lr_format("xml"); }),
            "--format xml: expected text, csv or json");
  EXPECT_EQ(parse_lr_format("csv"), LrFormat::csv);
}

}  // namespace
}  // namespace lockstep
