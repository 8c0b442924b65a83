#include "run/monitors.hpp"

#include <fmt/format.h>

#include <cstring>

#include "core/text.hpp"

namespace lockstep::run {
namespace {

std::string folder_of(const job::MonitorConfig& monitor, const std::string& run_folder, const char* name) {
  const std::string path = monitor.output_path.value_or("");
  const std::string folder = path.empty() ? run_folder + "/" + name : path;
  const std::string inner = monitor.job_name.value_or(path.empty() ? "" : "DeepSpeedJobName");
  return inner.empty() ? folder : folder + (folder.ends_with('/') ? "" : "/") + inner;
}

}  // namespace

std::vector<ScalarEvent> events_of(const StepMetrics& m, std::int64_t samples, bool fp16,
                                   const std::optional<StepTimes>& times) {
  std::vector<ScalarEvent> events;
  const auto add = [&](const std::string& name, double value) {
    events.push_back({"Train/Samples/" + name, value, samples});
  };
  for (std::size_t g = 0; g < m.lr.size(); ++g) add(g == 0 ? "lr" : fmt::format("lr_group_{}", g), m.lr[g]);
  add("train_loss", m.loss);
  if (fp16) add("loss_scale", m.loss_scale);
  if (times) {
    add("elapsed_time_ms_forward", times->forward);
    add("elapsed_time_ms_backward", times->backward);
    add("elapsed_time_ms_step", times->step);
  }
  add("grad_norm", m.grad_norm);
  add(fmt::format("{}_per_s", m.item), m.items_per_s);
  if (m.val_loss) add("val_loss", *m.val_loss);
  return events;
}

Monitors::Monitors(const job::JobConfig& job, const std::string& folder, std::int64_t begin) : fp16_(job.fp16.enabled) {
  // The first event stands at the end of the first step.
  const std::int64_t first = begin == 0 ? 0 : begin + 1;
  if (job.tensorboard.enabled) tensorboard_.emplace(folder_of(job.tensorboard, folder, "tensorboard"), first);
  if (job.csv_monitor.enabled) csv_.emplace(folder_of(job.csv_monitor, folder, "csv_monitor"), first);
}

std::string Monitors::write(const StepMetrics& metrics, std::int64_t samples, const std::optional<StepTimes>& times) {
  if (!tensorboard_ && !csv_) return {};
  const std::vector<ScalarEvent> events = events_of(metrics, samples, fp16_, times);
  std::string text;
  if (tensorboard_) text = told(tensorboard_->path(), tensorboard_->write(events));
  if (csv_)
    if (const std::string more = told(csv_->path(), csv_->write(events)); !more.empty()) text = more;
  return text;
}

std::string Monitors::told(const std::string& path, int reason) {
  if (reason == 0 || complained_) return {};
  complained_ = true;
  return fmt::format("{} cannot be written: {}; training goes on, and metrics.jsonl has everything", printable(path),
                     std::strerror(reason));
}

}  // namespace lockstep::run
