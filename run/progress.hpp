#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "run/metrics.hpp"

namespace lockstep::run {

/// Tells a person how a run goes: on a terminal one line that rewrites itself, in a log file a plain line every
/// `every` steps, the first and the last among them; 0: no line for steps anywhere. Only rank 0 has one that prints.
class Progress {
 public:
  Progress(std::int64_t first_step, std::int64_t total_steps, std::int64_t every, bool enabled);
  /// After each step.
  void step(const StepMetrics& metrics);
  /// A line that stays: a checkpoint, an evaluation, a skipped step.
  void note(const std::string& text);

 private:
  [[nodiscard]] std::string line(const StepMetrics& metrics) const;

  std::int64_t first_step_;
  std::int64_t total_steps_;
  std::int64_t every_;
  bool enabled_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
  std::size_t width_ = 0;  ///< characters on the terminal line now
};

/// "3:07" or "1:02:09".
[[nodiscard]] std::string duration_text(double seconds);
/// "21.3k", "1.2M"
[[nodiscard]] std::string short_number(double value);

}  // namespace lockstep::run
