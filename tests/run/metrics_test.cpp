#include "run/metrics.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <bit>
#include <csignal>
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

TEST(Metrics, ALineHasSamplesASecondAndTheValidationLossWhereThereIsOne) {
  StepMetrics metrics = metrics_of(1);
  metrics.item = "samples";
  metrics.val_loss = 2.5;
  metrics.memory_bytes = 7000;
  const json line = json::parse(to_json(metrics));
  EXPECT_EQ(line["val_loss"], 2.5);
  EXPECT_EQ(line["memory_bytes"], 7000);
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

std::string lines_of(std::initializer_list<std::int64_t> steps) {
  std::string text;
  for (const std::int64_t step : steps) text += to_json(metrics_of(step)) + "\n";
  return text;
}

/// A metrics.jsonl with a text in it, that a run goes on with.
struct Kept {
  ScratchFolder folder;
  std::string path = folder / "metrics.jsonl";

  explicit Kept(const std::string& text = {}) {
    if (!text.empty()) testing::write_text(path, text);
  }
  /// Goes on after `keep_steps` with the lines of `steps`; what was said.
  std::string go_on(std::int64_t keep_steps, std::initializer_list<std::int64_t> steps) const {
    MetricsFile file(path, scan_metrics(path, keep_steps));
    std::string said;
    for (const std::int64_t step : steps) said += file.write(metrics_of(step));
    return said;
  }
};

TEST(MetricsFile, IsCutBackInPlaceAndGoesOn) {
  const Kept file;
  EXPECT_EQ(file.go_on(0, {1, 2, 3, 4, 5, 6}), "");
  EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3, 4, 5, 6}));
  struct stat before = {}, after = {};
  ASSERT_EQ(::stat(file.path.c_str(), &before), 0);
  {
    MetricsFile open(file.path, scan_metrics(file.path, 4));
    EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3, 4}));
    EXPECT_EQ(open.write(metrics_of(5)), "");
    EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3, 4, 5})) << "each line at once";
  }
  ASSERT_EQ(::stat(file.path.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino) << "never a moment with fewer lines than the checkpoint has steps";
  EXPECT_EQ(file.go_on(0, {}), "");
  EXPECT_EQ(testing::text_of(file.path), "");
}

TEST(MetricsFile, ScanningChangesNothing) {
  const Kept file(lines_of({1, 2, 3}) + "{");
  const MetricsScan scan = scan_metrics(file.path, 1);
  EXPECT_EQ(scan.keep_bytes, static_cast<std::int64_t>(lines_of({1}).size()));
  EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3}) + "{");
}

TEST(MetricsFile, ALineCutShortByACrashGoes) {
  const Kept file(lines_of({1, 2}) + R"({"step":3,"upd)");
  file.go_on(10, {3});
  EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3}));
}

TEST(MetricsFile, AWholeLastLineWithoutItsEndStays) {
  const std::string text = lines_of({1, 2});
  const Kept file(text.substr(0, text.size() - 1));
  file.go_on(2, {3});
  EXPECT_EQ(testing::text_of(file.path), lines_of({1, 2, 3}));
}

TEST(MetricsFile, ABadLineDropsNoneBehindIt) {
  const std::string bad = "\x01\x02 what a disk left\n[12]\n{\"loss\":1}\n";
  const Kept file(lines_of({1}) + bad + lines_of({2, 3, 4}) + "rubbish\n");
  const MetricsScan scan = scan_metrics(file.path, 3);
  EXPECT_EQ(scan.bad_lines, 3);
  EXPECT_EQ(scan.first_bad, 2);
  file.go_on(3, {4});
  EXPECT_EQ(testing::text_of(file.path), lines_of({1}) + bad + lines_of({2, 3, 4}));
}

TEST(MetricsFile, AValueNestedWithoutEndIsABadLine) {
  const ScratchFolder scratch;
  const std::size_t depth = 200'000;
  const std::string nested = std::string(depth, '[') + std::string(depth, ']');
  testing::write_text(scratch / "metrics.jsonl", R"({"step": )" + nested + "}\n{\"step\": 2}\n");
  const MetricsScan scan = scan_metrics(scratch / "metrics.jsonl", 9);
  EXPECT_EQ(scan.bad_lines, 1);
  EXPECT_EQ(scan.first_bad, 1);
}

TEST(MetricsFile, AStepThatIsNoNumberIsAnErrorOfTheData) {
  for (const char* step : {"\"5\"", "5.5", "null", "[5]"}) {
    const Kept file(lines_of({1}) + "{\"step\":" + step + "}\n" + lines_of({3}));
    const std::string text = testing::error_text(ErrorKind::data, [&] { (void)scan_metrics(file.path, 9); });
    EXPECT_NE(text.find(file.path + " line 2: step is " + step), std::string::npos) << text;
  }
}

/// A disk with room for so many bytes a file.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    set(bytes);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, SIG_DFL);
  }
  void set(rlim_t bytes) const {
    const rlimit now{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
  }

 private:
  rlimit before_ = {};
};

TEST(MetricsFile, AFullDiskIsSaidOnceAndNoLineIsLost) {
  const Kept kept;
  MetricsFile file(kept.path, {});
  const std::string two = lines_of({1, 2});
  {
    const FullDisk disk(two.size() + 20);  // the third line fits in part
    EXPECT_EQ(file.write(metrics_of(1)), "");
    EXPECT_EQ(file.write(metrics_of(2)), "");
    const std::string said = file.write(metrics_of(3));
    EXPECT_NE(said.find(kept.path + " cannot be written: "), std::string::npos) << said;
    EXPECT_NE(said.find("training goes on"), std::string::npos) << said;
    EXPECT_EQ(file.write(metrics_of(4)), "") << "once";
    EXPECT_EQ(file.flushed(file.flush_to_disk()), "");
    EXPECT_EQ(testing::text_of(kept.path), two) << "no part of a line";
  }
  EXPECT_EQ(file.write(metrics_of(5)), kept.path + " can be written again; no line is lost");
  EXPECT_EQ(testing::text_of(kept.path), lines_of({1, 2, 3, 4, 5}));
}

TEST(MetricsFile, LinesLostToAFullDiskAreCounted) {
  const Kept kept;
  MetricsFile file(kept.path, {});
  const std::size_t line = lines_of({2000}).size();
  const auto fit = static_cast<std::int64_t>(MetricsFile::most_waiting / line);
  {
    const FullDisk disk(0);
    for (std::int64_t i = 0; i < fit + 3; ++i) (void)file.write(metrics_of(2000 + i % 1000));
  }
  EXPECT_EQ(file.flushed(file.flush_to_disk()), kept.path + " can be written again; 3 lines are lost");
  EXPECT_EQ(testing::text_of(kept.path).size(), static_cast<std::size_t>(fit) * line);
}

TEST(MetricsFile, LinesLostForGoodAreCountedAtTheEnd) {
  const std::string before = lines_of({1, 2, 3, 4, 5, 6, 7, 8});
  const Kept kept(before);
  ::testing::internal::CaptureStderr();
  {
    const FullDisk disk(before.size());  // there is still room for what is said
    MetricsFile file(kept.path, scan_metrics(kept.path, 8));
    (void)file.write(metrics_of(9));
    (void)file.write(metrics_of(10));
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find(kept.path + ": 2 lines are lost"), std::string::npos) << said;
  EXPECT_EQ(testing::text_of(kept.path), before);
}

TEST(MetricsFile, AFolderInTheWayIsAnErrorOfTheEnvironment) {
  const ScratchFolder folder;
  const std::string path = folder.path().string();
  for (const std::string& text :
       {testing::error_text(ErrorKind::environment, [&] { (void)scan_metrics(path, 0); }),
        testing::error_text(ErrorKind::environment, [&] { const MetricsFile file(path, {}); })})
    EXPECT_NE(text.find(path), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::run
