// kinds loss_scaler and engine: overflow bits drive decide_step, the function that decides every real step, or the
// kernel made of it.

#include <limits>
#include <span>
#include <vector>

#include "core/error.hpp"
#include "kernels/decide/decide_rule.hpp"
#include "tests/golden/trace.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::golden {
namespace {

using nlohmann::json;

ScalerConfig scaler_of(const json& fp16) {
  const double fixed = fp16.value("loss_scale", 0.0);
  ScalerConfig config;
  config.on_overflow = ScalerConfig::OnOverflow::scaled;
  config.dynamic = fixed > 0 ? 0 : 1;
  config.initial_scale = fixed > 0 ? fixed : std::exp2(fp16.value("initial_scale_power", 16.0));
  config.min_scale = fp16.value("min_loss_scale", 1.0);
  config.window = fp16.value("loss_scale_window", std::int64_t{1000});
  config.hysteresis = fp16.value("hysteresis", std::int64_t{2});
  config.consecutive_hysteresis = fp16.value("consecutive_hysteresis", false) ? 1 : 0;
  return config;
}

/// One rank's steps, with a record that holds the one row the state asks for.
class Stepper {
 public:
  Stepper(const json& fp16, const sched::Schedule& schedule, const testing::Session* session)
      : session_(session),
        schedule_(schedule),
        groups_(static_cast<std::int32_t>(schedule.groups())),
        config_(scaler_of(fp16)),
        inputs_((sizeof(StepInputs) + record_bytes(1, groups_)) / sizeof(StepReport) + 1),
        group_steps_(schedule.groups()),
        result_(result_bytes(groups_) / sizeof(StepReport) + 1) {
    state_.scale = config_.initial_scale;
    state_.hysteresis = config_.hysteresis;
  }

  void step(bool overflow) {
    StepInputs& inputs = *new (inputs_.data()) StepInputs;
    StepRecord& record = *new (&inputs + 1) StepRecord{
        .step = state_.attempted, .first_index = state_.applied, .count = 1, .groups = groups_};
    schedule_.values_at(state_.applied, std::span(record.rows(), group_steps_.size()));
    const StepReport report = {.norm2 = overflow ? std::numeric_limits<double>::infinity() : 1.0,
                               .first_bad = overflow ? 7 : -1};
    DecideArgs args = {.inputs = &inputs,
                       .reports = &report,
                       .groups = groups_,
                       .scaler = config_,
                       .state = &state_,
                       .group_steps = group_steps_.data(),
                       .result = reinterpret_cast<StepResult*>(result_.data())};
    if (session_ == nullptr) return decide_step(args);
    const testing::Array<StepReport> there(*session_, inputs_), reports(*session_, {report}),
        result(*session_, result_);
    const testing::Array<StepState> state(*session_, {state_});
    const testing::Array<GroupStep> groups(*session_, group_steps_);
    args.inputs = reinterpret_cast<const StepInputs*>(there.data());
    args.reports = reports.data();
    args.state = state.data();
    args.group_steps = groups.data();
    args.result = reinterpret_cast<StepResult*>(result.data());
    kernels::decide(session_->exec(), args);
    state_ = state.host().front();
    group_steps_ = groups.host();
    result_ = result.host();
  }

  [[nodiscard]] const StepState& state() const { return state_; }
  [[nodiscard]] const StepResult& result() const { return *reinterpret_cast<const StepResult*>(result_.data()); }
  [[nodiscard]] const std::vector<GroupStep>& group_steps() const { return group_steps_; }

 private:
  const testing::Session* session_;
  const sched::Schedule& schedule_;
  std::int32_t groups_;
  ScalerConfig config_;
  std::vector<StepReport> inputs_;  // storage with their alignment
  std::vector<GroupStep> group_steps_;
  StepState state_;
  std::vector<StepReport> result_;  // likewise, with room for the values behind it
};

// Follows the bits up to the step that stops the run, which the trace must name; `after` sees every other step.
template <class After>
Mismatches follow(const json& trace, const json& expected, Stepper& stepper, After after) {
  Mismatches out;
  const std::string bits = trace.at("overflow").get<std::string>();
  json raised;
  for (std::size_t i = 0; i < bits.size() && raised.is_null(); ++i) {
    stepper.step(bits[i] == '1');
    if (stepper.state().halt == Halt::scale_floor)
      raised = i;
    else if (stepper.state().halt != Halt::none)
      throw std::runtime_error("the step halted for another reason than the scale");
    else
      after(out, i);
  }
  if (raised != expected.at("raised_at"))
    out.push_back(fmt::format("raised_at: expected {}, got {}", expected["raised_at"].dump(), raised.dump()));
  return out;
}

}  // namespace

Mismatches check_loss_scaler(const json& trace, const testing::Session* session) {
  const json& expected = trace.at("dynamic");
  const auto schedule = sched::make_constant({{{.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999}, true}});
  Stepper stepper(trace.at("fp16"), *schedule, session);
  std::vector<double> scale = {stepper.state().scale};
  std::vector<double> hysteresis = {static_cast<double>(stepper.state().hysteresis)};
  Mismatches out = follow(trace, expected, stepper, [&](Mismatches&, std::size_t) {
    scale.push_back(stepper.state().scale);
    hysteresis.push_back(static_cast<double>(stepper.state().hysteresis));
  });
  expect_equal(out, "scale", expected.at("scale"), scale);
  expect_equal(out, "hysteresis", expected.at("hysteresis"), hysteresis);
  expect_equal(out, "cur_iter", expected.at("cur_iter"), static_cast<double>(stepper.state().iteration));
  expect_equal(out, "last_overflow_iter", expected.at("last_overflow_iter"),
               static_cast<double>(stepper.state().last_overflow));
  return out;
}

Mismatches check_engine(const json& trace, const testing::Session* session) {
  const json& expected = trace.at("dynamic");
  const auto groups = to_groups(trace.at("optimizer_initial"));
  const auto schedule =
      sched::make_schedule(trace.at("scheduler").get<std::string>(), to_params(trace.at("params")), groups);
  Stepper stepper(trace.at("fp16"), *schedule, session);
  std::size_t steps = 0;
  Mismatches out = follow(trace, expected, stepper, [&](Mismatches& found, std::size_t i) {
    ++steps;
    const std::string at = fmt::format("step {}: ", i);
    const StepState& state = stepper.state();
    expect_equal(found, at + "scale_used", expected.at("scale_used").at(i), stepper.result().scale);
    expect_equal(found, at + "last_batch_iteration", expected.at("last_batch_iteration").at(i),
                 static_cast<double>(schedule->first_index() + state.applied));
    expect_equal(found, at + "skipped_steps", expected.at("skipped_steps").at(i),
                 static_cast<double>(state.attempted - state.applied));
    const json& lr_used = expected.at("lr_used").at(i);
    if ((state.skip != 0) != lr_used.is_null()) found.push_back(at + "applied by one, skipped by the other");
    if (state.skip != 0 || lr_used.is_null()) return;
    std::vector<double> lr, beta1;
    for (const GroupStep& group : stepper.group_steps()) {
      lr.push_back(group.lr);
      beta1.push_back(group.beta1);
    }
    expect_equal(found, at + "lr_used", lr_used, lr);
    if (groups.at(0).has_betas) expect_equal(found, at + "beta1_used", expected.at("beta1_used").at(i), beta1);
  });
  if (expected.at("lr_used").size() != steps)
    out.push_back(fmt::format("the trace has {} steps, we took {}", expected["lr_used"].size(), steps));
  expect_equal(out, "final_scale", expected.at("final_scale"), stepper.state().scale);
  expect_equal(out, "global_steps", expected.at("global_steps"), static_cast<double>(stepper.state().attempted));
  std::vector<StepValues> next(groups.size());
  schedule->values_at(stepper.state().applied, next);
  std::vector<double> final_lr;
  for (const auto& values : next) final_lr.push_back(values.lr);
  expect_equal(out, "final_lr", expected.at("final_lr"), final_lr);
  return out;
}

}  // namespace lockstep::golden
