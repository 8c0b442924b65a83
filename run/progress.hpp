#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>

#include "run/metrics.hpp"

namespace lockstep::run {

/// Tells a person how a run goes, on standard output: a line every `every` steps, the first and the last among them,
/// which stays; on a terminal between them one that rewrites itself. 0: no line for steps anywhere. Only rank 0 has one
/// that prints.
class Progress {
 public:
  Progress(std::int64_t first_step, std::int64_t total_steps, std::int64_t every, bool enabled);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// The last line stays, however the run ends.
  ~Progress();
  /// After each step.
  void step(const StepMetrics& metrics);
  /// A line that stays: a checkpoint, an evaluation, a skipped step.
  void note(const std::string& text);

 private:
  [[nodiscard]] double seconds_left(std::int64_t step) const;
  /// Items a second over the latest steps: one that took far longer than its neighbours (an evaluation before it, a
  /// busy machine) is a part of the average and not the rate.
  [[nodiscard]] double average_rate(const StepMetrics& metrics);

  std::int64_t first_step_;
  std::int64_t total_steps_;
  std::int64_t every_;
  bool enabled_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
  struct Took {
    double items, seconds;
  };
  std::deque<Took> latest_;  ///< steps
};

/// "step  12/200   6%  eta    1:35  loss 2.2015  lr 1.000e-03  norm 0.871   38.1k tokens/s", in at most `columns`
/// characters (0: any number). Where that is too few, parts go: first norm, then lr, speed, eta, percent, and at last
/// all but step and loss.
[[nodiscard]] std::string step_line(const StepMetrics& metrics, std::int64_t total_steps, double seconds_left,
                                    std::size_t columns);

/// Columns of the terminal that standard output is, as it says itself or else as the environment's COLUMNS says; 0 for
/// anything else. A rank of mpirun has none: its output is the launcher's to show, in a file or anywhere.
[[nodiscard]] std::size_t terminal_columns();

/// "3:07" or "1:02:09".
[[nodiscard]] std::string duration_text(double seconds);
/// "21.3k", "1.2M"
[[nodiscard]] std::string short_number(double value);

}  // namespace lockstep::run
