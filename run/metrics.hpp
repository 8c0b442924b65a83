#pragma once

#include <cstdint>
#include <deque>
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
  std::optional<double> val_accuracy = {};         ///< of classifiers, where val_loss is
  std::optional<std::uint64_t> memory_bytes = {};  ///< the most of a process so far (PeakMemory), where it was asked
};

/// One JSON object, without the line end. Numbers are shortest round-trip decimals; what is not finite is null.
[[nodiscard]] std::string to_json(const StepMetrics& metrics);

/// What is found in a metrics.jsonl that a run goes on with.
struct MetricsScan {
  std::int64_t keep_bytes = 0;  ///< lines of the steps that stay
  bool add_line_end = false;    ///< the last of them lacks it
  std::int64_t behind = 0;      ///< lines that go
  std::int64_t bad_lines = 0;   ///< among them: no JSON object with a step; they stay as they are
  std::int64_t first_bad = 0;   ///< its number, from 1
};

/// Reads without changing anything. The file is to be cut before its first line with a step above `keep_steps`; a
/// last line that a crash cut short goes too. A line that cannot be read drops none of those behind it. No file is an
/// empty one. ErrorKind::environment if it cannot be read, ErrorKind::data if a `step` is no whole number: then it is
/// not clear where to cut.
[[nodiscard]] MetricsScan scan_metrics(const std::string& path, std::int64_t keep_steps);

/// Appends to metrics.jsonl: one object a step, one write a line.
///
/// Metrics are worth less than the training they describe. When a line cannot be written (the disk is full), it waits
/// in memory and is tried again with the next; when too much waits, the oldest goes.
class MetricsFile {
 public:
  /// Bytes of lines that wait for a disk.
  static constexpr std::size_t most_waiting = std::size_t{1} << 20;

  /// Opens or makes the file and cuts it in place, so that a resumed run leaves no step twice. ErrorKind::environment
  /// if that fails.
  MetricsFile(std::string path, const MetricsScan& scan);
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  ~MetricsFile();
  /// What the user should hear: that lines cannot be written, that they can be again, how many are lost. Mostly empty.
  [[nodiscard]] std::string write(const StepMetrics& metrics);
  /// Flushes what was written to the disk: a checkpoint that follows finds its steps' lines there after a crash. 0 or
  /// the system's errno, for flushed(). The one method that another thread may call meanwhile.
  [[nodiscard]] int flush_to_disk() const;
  /// What the user should hear of that.
  [[nodiscard]] std::string flushed(int reason);

 private:
  void wait_with(std::string line);
  bool flush();
  bool append(const std::string& line);
  /// The sentence, if it is time for one.
  [[nodiscard]] std::string told(bool fine);

  std::string path_;
  int file_ = -1;
  std::int64_t size_ = 0;  ///< of the whole lines
  int reason_ = 0;         ///< errno of the latest failure
  std::deque<std::string> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::int64_t lost_ = 0;
  bool complained_ = false;
};

}  // namespace lockstep::run
