#include "run/step_times.hpp"

#include <fmt/format.h>

#include <utility>

#include "core/error.hpp"

namespace lockstep::run {

using Clock = std::chrono::steady_clock;

StepTimes& StepTimes::operator+=(const StepTimes& other) {
  data += other.data;
  forward += other.forward;
  backward += other.backward;
  step += other.step;
  return *this;
}

std::string breakdown_text(const StepTimes& sum, std::int64_t steps) {
  const auto n = static_cast<double>(steps);
  return fmt::format("time (ms) | fwd: {:.2f} | bwd: {:.2f} | step: {:.2f} | data: {:.2f}", sum.forward / n,
                     sum.backward / n, sum.step / n, sum.data / n);
}

void StepClock::begin_step() {
  steps_.emplace_back();
  lap_began_ = Clock::now();
}

void StepClock::lap(double StepTimes::*part) {
  const auto now = Clock::now();
  steps_.back().*part += std::chrono::duration<double, std::milli>(now - std::exchange(lap_began_, now)).count();
}

StepTimes StepClock::finish_step() {
  require(!steps_.empty(), "step clock: no step has begun");
  const StepTimes times = steps_.front();
  steps_.pop_front();
  sum_ += times;
  ++summed_;
  return times;
}

std::string StepClock::breakdown() { return breakdown_text(std::exchange(sum_, {}), std::exchange(summed_, 0)); }

}  // namespace lockstep::run
