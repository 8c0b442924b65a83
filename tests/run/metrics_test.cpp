#include "run/metrics.hpp"

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using nlohmann::json;
using testing::ScratchFolder;

StepMetrics metrics_of(std::int64_t step) {
  return {.step = step,
          .update = step - 1,
          .loss = 1.0 / 3,
          .lr = {1e-3, 0.1},
          .grad_norm = 0.25,
          .loss_scale = 65536,
          .skipped = true,
          .items_per_s = 1234.56,
          .item = "tokens",
          .step_ms = 1.5,
          .val_loss = {}};
}

TEST(Metrics, ALineHasEveryKey) {
  const json line = json::parse(to_json(metrics_of(7)));
  std::set<std::string> keys;
  for (const auto& item : line.items()) keys.insert(item.key());
  EXPECT_EQ(keys, (std::set<std::string>{"step", "update", "loss", "loss_bits", "lr", "grad_norm", "loss_scale",
                                         "skipped", "tokens_per_s", "step_ms"}));
  EXPECT_EQ(line["step"], 7);
  EXPECT_EQ(line["update"], 6);
  EXPECT_EQ(line["loss"], 1.0 / 3);
  EXPECT_EQ(line["lr"], (std::vector<double>{1e-3, 0.1}));
  EXPECT_EQ(line["loss_scale"], 65536);
  EXPECT_EQ(line["skipped"], true);
  const auto bits = static_cast<std::uint32_t>(std::stoul(line["loss_bits"].get<std::string>(), nullptr, 16));
  EXPECT_EQ(std::bit_cast<float>(bits), 1.0F / 3);
}

TEST(Metrics, SamplesAndValidation) {
  StepMetrics metrics = metrics_of(1);
  metrics.item = "samples";
  metrics.val_loss = 2.5;
  const json line = json::parse(to_json(metrics));
  EXPECT_EQ(line["val_loss"], 2.5);
  EXPECT_TRUE(line.contains("samples_per_s"));
  EXPECT_FALSE(line.contains("tokens_per_s"));
}

TEST(Metrics, WhatIsNotFiniteIsNull) {
  StepMetrics metrics = metrics_of(1);
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  const json line = json::parse(to_json(metrics));
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_TRUE(line["grad_norm"].is_null());
  EXPECT_EQ(line["loss_bits"], "7fc00000");
}

std::vector<std::int64_t> steps_in(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::int64_t> steps;
  for (std::string line; std::getline(in, line);) steps.push_back(json::parse(line).at("step"));
  return steps;
}

TEST(Metrics, AFileIsCutBackAndGoesOn) {
  const ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    for (std::int64_t step = 1; step <= 6; ++step) file.write(metrics_of(step));
  }
  EXPECT_EQ(steps_in(path), (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  {
    MetricsFile file(path, 4);
    file.write(metrics_of(5));
    EXPECT_EQ(steps_in(path), (std::vector<std::int64_t>{1, 2, 3, 4, 5})) << "flushed line by line";
  }
  { const MetricsFile file(path, 0); }
  EXPECT_TRUE(steps_in(path).empty());
}

TEST(Metrics, ALineCutShortByACrashGoes) {
  const ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  testing::write_text(path, to_json(metrics_of(1)) + "\n" + to_json(metrics_of(2)) + "\n" + R"({"step":3,"upd)");
  MetricsFile file(path, 10);
  file.write(metrics_of(3));
  EXPECT_EQ(steps_in(path), (std::vector<std::int64_t>{1, 2, 3}));
}

TEST(Metrics, AFolderInTheWayIsAnErrorOfTheEnvironment) {
  const ScratchFolder folder;
  const std::string text =
      testing::error_text(ErrorKind::environment, [&] { const MetricsFile file(folder.path().string(), 0); });
  EXPECT_NE(text.find(folder.path().string()), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::run
