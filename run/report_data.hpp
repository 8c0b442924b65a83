#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "run/run_starts.hpp"

namespace lockstep::run {

/// One line of metrics.jsonl. What is null there is NaN here.
struct MetricsRow {
  std::int64_t step = 0;
  std::int64_t update = 0;
  double loss = 0;
  std::string loss_bits;  ///< as it stands there
  std::vector<double> lr;
  double grad_norm = 0;
  double loss_scale = 1;
  bool skipped = false;
  double items_per_s = 0;
  double step_ms = 0;
  std::optional<double> val_loss;
};

/// What a run's folder tells of it.
struct RunRecord {
  std::string folder;
  std::string job;  ///< the text of job.yaml; empty if there is none
  std::vector<RunStart> starts;
  std::vector<MetricsRow> rows;  ///< steps ascend
  std::string item = "samples";  ///< what throughput counts: tokens | samples
  std::int64_t bad_lines = 0;    ///< of metrics.jsonl that could not be read
  /// Steps that were done again: rows from `to` on that stood before a row of step `to` are not among `rows`.
  struct Rollback {
    std::int64_t from = 0;
    std::int64_t to = 0;
  };
  std::vector<Rollback> rollbacks;
};

/// Reads a run's folder, which may be of a run under way. Throws ErrorKind::config, with what to give, for a path that
/// is no run's folder; ErrorKind::data if it has no line of metrics.
[[nodiscard]] RunRecord read_run(const std::string& folder);

/// The middle one; NaN of none. Of an even number the higher.
[[nodiscard]] double median(std::vector<double> values);

/// What is usually asked of a run.
struct RunSummary {
  std::int64_t steps = 0;
  std::int64_t updates = 0;
  std::int64_t skipped = 0;
  std::int64_t not_finite = 0;  ///< steps whose loss is no number
  double last_loss = 0;
  std::optional<double> last_val_loss, best_val_loss;
  std::int64_t best_step = 0;  ///< of best_val_loss
  double items_per_s = 0;      ///< median
  double seconds = 0;          ///< in steps, without evaluation and saving
};
[[nodiscard]] RunSummary summary_of(const RunRecord& run);

}  // namespace lockstep::run
