#include "run/monitors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/event_file.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

using testing::ScratchFolder;

StepMetrics a_step() {
  StepMetrics m;
  m.step = 3;
  m.update = 2;
  m.loss = 1.5;
  m.lr = {0.25, 0.125};
  m.grad_norm = 4;
  m.loss_scale = 1024;
  m.items_per_s = 100;
  m.item = "samples";
  m.step_ms = 10;
  return m;
}

std::vector<std::string> tags_of(const std::vector<ScalarEvent>& events) {
  std::vector<std::string> tags;
  for (const ScalarEvent& event : events) tags.push_back(event.tag.substr(std::string("Train/Samples/").size()));
  return tags;
}

TEST(Monitors, EventsHaveDeepSpeedsTagsAndSamplesAsX) {
  StepMetrics with_val = a_step();
  with_val.val_loss = 2;

  const auto plain = events_of(a_step(), 48, false, {});
  const auto full = events_of(with_val, 48, true, StepTimes{.data = 0.5, .forward = 1, .backward = 2, .step = 3});

  EXPECT_EQ(tags_of(plain), (std::vector<std::string>{"lr", "lr_group_1", "train_loss", "grad_norm", "samples_per_s"}));
  EXPECT_EQ(tags_of(full),
            (std::vector<std::string>{"lr", "lr_group_1", "train_loss", "loss_scale", "elapsed_time_ms_forward",
                                      "elapsed_time_ms_backward", "elapsed_time_ms_step", "grad_norm", "samples_per_s",
                                      "val_loss"}));
  for (const ScalarEvent& event : full) EXPECT_EQ(event.x, 48);
  EXPECT_EQ(full[0].value, 0.25);
  EXPECT_EQ(full[1].value, 0.125);
  EXPECT_EQ(full[3].value, 1024);
  EXPECT_EQ(full[5].value, 2);
}

TEST(Monitors, GoWhereTheJobSays) {
  const ScratchFolder folder;
  const std::string run = folder / "run";
  const auto write = [&](const job::MonitorConfig& config) {
    job::JobConfig job;
    job.tensorboard = job.csv_monitor = config;
    Monitors monitors(job, run, 0);
    EXPECT_EQ(monitors.write(a_step(), 48, {}), "");
  };
  write({.enabled = false, .output_path = folder / "off", .job_name = {}});
  write({.enabled = true, .output_path = {}, .job_name = {}});
  write({.enabled = true, .output_path = "", .job_name = "inner"});
  write({.enabled = true, .output_path = folder / "logs/", .job_name = "mine"});
  write({.enabled = true, .output_path = folder / "other", .job_name = {}});

  EXPECT_FALSE(std::filesystem::exists(folder / "off"));
  for (const char* place : {"run/csv_monitor", "run/csv_monitor/inner", "logs/mine", "other/DeepSpeedJobName"})
    EXPECT_TRUE(std::filesystem::exists(folder / (std::string(place) + "/Train_Samples_lr.csv"))) << place;
  for (const char* place : {"run/tensorboard", "run/tensorboard/inner", "logs/mine", "other/DeepSpeedJobName"}) {
    bool found = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder / place))
      found = found || entry.path().filename().string().starts_with("events.out.tfevents.");
    EXPECT_TRUE(found) << place;
  }
}

TEST(Monitors, ADiskThatFailsIsToldOnceAndStopsNothing) {
  const ScratchFolder folder;
  job::JobConfig job;
  job.csv_monitor.enabled = true;
  Monitors monitors(job, folder.path().string(), 0);
  std::filesystem::remove_all(folder / "csv_monitor");

  const std::string first = monitors.write(a_step(), 48, {});
  const std::string second = monitors.write(a_step(), 64, {});

  EXPECT_NE(first.find("cannot be written: No such file or directory; training goes on"), std::string::npos) << first;
  EXPECT_EQ(second, "");
}

}  // namespace
}  // namespace lockstep::run
