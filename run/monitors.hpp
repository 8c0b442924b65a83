#pragma once

#include <optional>
#include <string>
#include <vector>

#include "job/job.hpp"
#include "run/csv_monitor.hpp"
#include "run/metrics.hpp"
#include "run/step_times.hpp"
#include "run/tensorboard.hpp"

namespace lockstep::run {

/// What monitors are told of a step. DeepSpeed's tags: Train/Samples/lr (of group 0; lr_group_1 and so on beside it),
/// train_loss, with fp16 loss_scale, with `times` elapsed_time_ms_forward, _backward and _step. Beyond them: grad_norm,
/// tokens_per_s or samples_per_s, and val_loss where it was taken. `samples`: seen up to the end of the step.
[[nodiscard]] std::vector<ScalarEvent> events_of(const StepMetrics& metrics, std::int64_t samples, bool fp16,
                                                 const std::optional<StepTimes>& times);

/// The job's tensorboard and csv_monitor. A monitor that cannot be written stops no training.
class Monitors {
 public:
  /// `folder`: the run's. `begin`: samples that the run saw before this process, 0 for a new run.
  /// ErrorKind::environment if files cannot be made.
  Monitors(const job::JobConfig& job, const std::string& folder, std::int64_t begin);

  /// What the user should hear; mostly empty.
  [[nodiscard]] std::string write(const StepMetrics& metrics, std::int64_t samples,
                                  const std::optional<StepTimes>& times);

 private:
  [[nodiscard]] std::string told(const std::string& path, int reason);

  bool fp16_;
  std::optional<TensorboardFile> tensorboard_;
  std::optional<CsvMonitor> csv_;
  bool complained_ = false;
};

}  // namespace lockstep::run
