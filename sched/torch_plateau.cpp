#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// torch's ReduceLROnPlateau: the optimizer's lr, multiplied by `factor` each time the metric has not improved for more
/// than `patience` evaluations in a row.
class Plateau final : public Schedule {
 public:
  Plateau(const Type& type, const Params& params, std::vector<GroupInitial> given)
      : Schedule(type.name, params, std::move(given)),
        greatest_(params.text("mode") == "max"),
        relative_(params.text("threshold_mode") == "rel"),
        factor_(params.number("factor")),
        threshold_(params.number("threshold")),
        eps_(params.number("eps")),
        patience_(params.integer("patience")),
        cooldown_(params.integer("cooldown")),
        min_lr_(params.per_group("min_lr", groups())) {
    if (greatest_)
      warn(
          "mode max lowers the learning rate while val_loss falls: a loss is better the smaller it is, write mode: "
          "min");
    note(
        fmt::format("only the rates before the first evaluation are known beforehand: the rest depends on val_loss, "
                    "after {} of which without improvement each rate is multiplied by {}",
                    patience_ + 1, factor_));
  }

  [[nodiscard]] std::optional<MetricState> metric_state() const override {
    MetricState state;
    for (const GroupInitial& group : initial()) state.lr.push_back(group.lr);
    return state;
  }

  void observe(std::int64_t /*update*/, double metric, MetricState& state) const override {
    require(state.lr.size() == groups(), "schedule: the metric's state is of another number of parameter groups");
    ++state.seen;
    if (is_better(metric, state.best)) {
      state.best = metric;
      state.bad = 0;
    } else {
      ++state.bad;
    }
    if (state.cooldown > 0) {
      --state.cooldown;
      state.bad = 0;
    }
    if (state.bad <= patience_) return;
    for (std::size_t g = 0; g < groups(); ++g) {
      const double lower = std::max(state.lr[g] * factor_, min_lr_[g]);
      if (state.lr[g] - lower > eps_) state.lr[g] = lower;
    }
    state.cooldown = cooldown_;
    state.bad = 0;
  }

  void follow(std::int64_t /*update*/, const MetricState& state, std::span<StepValues> out) const override {
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = state.lr.at(g);
  }

 private:
  [[nodiscard]] bool is_better(double metric, const std::optional<double>& before) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const double best = before.value_or(greatest_ ? -infinity : infinity);
    if (greatest_) return metric > (relative_ ? best * (threshold_ + 1.0) : best + threshold_);
    return metric < (relative_ ? best * (1.0 - threshold_) : best - threshold_);
  }

  /// Before any metric: the optimizer's own values, which are there already.
  void at_index(std::int64_t /*index*/, std::span<StepValues> /*out*/) const override {}

  bool greatest_, relative_;
  double factor_, threshold_, eps_;
  std::int64_t patience_, cooldown_;
  std::vector<double> min_lr_;
};

Fields plateau_fields() {
  Field factor = number_field("factor", "0.1", "What each reduction multiplies the rate with.", 0.0);
  factor.max = 1;
  factor.max_open = true;
  Field patience =
      steps_field("patience", "10", "Evaluations without improvement that are borne; one more reduces.", 0);
  Field cooldown = steps_field("cooldown", "0", "Evaluations after a reduction in which none counts as bad.", 0);
  patience.unit = cooldown.unit = "evaluations";
  Field min_lr =
      number_field("min_lr", "0.0", "No reduction goes below; a number, or one for each parameter group.", 0.0);
  min_lr.type = FieldType::number_or_list;
  return {{.name = "mode",
           .type = FieldType::choice,
           .default_text = "min",
           .doc = "Whether val_loss improves when it gets smaller (min), which a loss does, or greater (max).",
           .choices = {"min", "max"}},
          std::move(factor),
          std::move(patience),
          number_field("threshold", "0.0001", "How much better than the best so far counts as an improvement.", 0.0),
          {.name = "threshold_mode",
           .type = FieldType::choice,
           .default_text = "rel",
           .doc = "threshold is a part of the best (rel) or a difference (abs).",
           .choices = {"rel", "abs"}},
          std::move(cooldown),
          std::move(min_lr),
          number_field("eps", "1e-8", "A reduction that changes the rate by no more than this is left out.", 0.0)};
}

}  // namespace

const std::vector<Type>& torch_plateau_types() {
  static const std::vector<Type> types = {
      {"ReduceLROnPlateau",
       "torch's, driven by val_loss: the optimizer's lr, multiplied by factor when val_loss has stopped improving.",
       plateau_fields(),
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<Plateau>(type, params, std::move(initial));
       }}};
  return types;
}

}  // namespace lockstep::sched
