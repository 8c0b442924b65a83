#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "kernels/decide/step.hpp"

namespace lockstep::run {

/// What metrics.jsonl holds for one step.
struct StepMetrics {
  std::int64_t step = 0;    ///< attempted steps so far, this one included
  std::int64_t update = 0;  ///< updates applied so far
  double loss = 0;          ///< mean over the global batch, nats
  std::vector<double> lr;   ///< per group, that this step used (or would have used, if skipped)
  double grad_norm = 0;     ///< before clipping
  double loss_scale = 1;
  bool skipped = false;
  double items_per_s = 0;
  const char* item = "tokens";  ///< tokens | samples: names the key tokens_per_s or samples_per_s
  double step_ms = 0;
  std::optional<double> val_loss;
};

/// One JSON object, without the line end. Numbers are shortest round-trip decimals; what is not finite is null.
[[nodiscard]] std::string to_json(const StepMetrics& metrics);

/// Appends to metrics.jsonl, one object a step, flushed line by line.
class MetricsFile {
 public:
  /// Opens or makes the file and cuts it back to the lines with step <= keep_steps, so that a resumed run
  /// leaves no step twice. ErrorKind::environment if that fails.
  MetricsFile(const std::string& path, std::int64_t keep_steps);
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  ~MetricsFile();
  void write(const StepMetrics& metrics);

 private:
  std::FILE* file_ = nullptr;
};

}  // namespace lockstep::run
