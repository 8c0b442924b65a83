#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>

namespace lockstep::run {

/// Milliseconds of the host in one step, all its micro-batches together.
struct StepTimes {
  double data = 0;  ///< making the samples
  double forward = 0;
  double backward = 0;  ///< with the exchange of gradients that runs under it
  double step = 0;      ///< the rest of the exchange, decision and update
  StepTimes& operator+=(const StepTimes& other);
};

/// "time (ms) | fwd: 1.25 | bwd: 2.50 | step: 0.75 | data: 0.05": the mean of `steps` steps.
[[nodiscard]] std::string breakdown_text(const StepTimes& sum, std::int64_t steps);

/// Takes the times of steps, some of which may be in flight when the next ones begin.
class StepClock {
 public:
  void begin_step();
  /// What passed since the last lap, or the step's beginning, was spent on this part.
  void lap(double StepTimes::*part);
  /// The times of the oldest step that was not asked for yet: to be called once a step, in their order.
  StepTimes finish_step();
  /// breakdown_text of the steps that finished since the last call.
  [[nodiscard]] std::string breakdown();

 private:
  std::chrono::steady_clock::time_point lap_began_;
  std::deque<StepTimes> steps_;
  StepTimes sum_;
  std::int64_t summed_ = 0;
};

}  // namespace lockstep::run
