#include "run/drill.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

class OffByOneBit final : public sched::Schedule {
 public:
  OffByOneBit(std::shared_ptr<const sched::Schedule> schedule, std::int64_t step)
      : Schedule(schedule->type(), schedule->params(), schedule->initial()),
        schedule_(std::move(schedule)),
        step_(step) {}

  [[nodiscard]] std::optional<sched::MetricState> metric_state() const override { return schedule_->metric_state(); }
  void observe(std::int64_t update, double metric, sched::MetricState& state) const override {
    schedule_->observe(update, metric, state);
  }
  void follow(std::int64_t update, const sched::MetricState& state, std::span<StepValues> out) const override {
    schedule_->follow(update, state, out);
    if (update == step_) tamper(out);
  }

 private:
  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    schedule_->values_at_index(index, out);
    if (index == first_index() + step_) tamper(out);
  }
  void at_construction(std::span<StepValues> out) const override {
    schedule_->values_at_construction(out);
    if (step_ == 0) tamper(out);
  }
  static void tamper(std::span<StepValues> values) { values[0].lr = std::nextafter(values[0].lr, 1.0); }

  std::shared_ptr<const sched::Schedule> schedule_;
  std::int64_t step_;
};

}  // namespace

Drill drill_from_environment() {
  Drill drill;
  const char* text = std::getenv("LOCKSTEP_DRILL");
  if (text == nullptr || *text == '\0') return drill;
  int rank = 0;
  long long step = 0;
  double seconds = 0;
  if (std::sscanf(text, "desync@rank=%d,step=%lld", &rank, &step) == 2) {
    drill.desync_rank = rank;
    drill.desync_step = step;
  } else if (std::sscanf(text, "slow_save@seconds=%lf", &seconds) == 1 && seconds >= 0 && seconds < 1e6) {
    drill.save_delay = std::chrono::duration<double>(seconds);
  } else {
    fail(ErrorKind::config, "LOCKSTEP_DRILL={}: expected desync@rank=R,step=S or slow_save@seconds=S", text);
  }
  return drill;
}

std::shared_ptr<const sched::Schedule> off_by_one_bit(std::shared_ptr<const sched::Schedule> schedule,
                                                      std::int64_t step) {
  return std::make_shared<OffByOneBit>(std::move(schedule), step);
}

}  // namespace lockstep::run
