#include <algorithm>
#include <cmath>
#include <numbers>

#include "config/field_value.hpp"
#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// The ramp that DeepSpeed's warmup family shares: gamma(n) = log(n + 1) / log(W) or n / W, for 0 <= n < W.
class Ramp {
 public:
  explicit Ramp(const Params& params)
      : steps_(std::max<std::int64_t>(2, params.integer("warmup_num_steps"))),
        inverse_log_steps_(1.0 / std::log(static_cast<double>(steps_))),
        linear_(params.text("warmup_type") == "linear") {}

  [[nodiscard]] std::int64_t steps() const { return steps_; }
  [[nodiscard]] double gamma(std::int64_t n) const {
    if (linear_) return static_cast<double>(n) / static_cast<double>(steps_);
    return inverse_log_steps_ * std::log(static_cast<double>(n + 1));
  }

 private:
  std::int64_t steps_;
  double inverse_log_steps_;
  bool linear_;
};

std::string unknown_ramp_warning(const Params& params) {
  const std::string type = params.text("warmup_type");
  if (type == "log" || type == "linear") return {};
  return fmt::format("warmup_type '{}' is unknown and read as log, as DeepSpeed does; it knows log and linear", type);
}

std::string short_total_warning(double total, std::int64_t warmup) {
  if (total >= static_cast<double>(warmup)) return {};
  return fmt::format(
      "total_num_steps {} is less than warmup_num_steps {}: the ramp is walked to its end, then the learning rate "
      "drops to its final value at once",
      total, warmup);
}

/// WarmupLR: min -> max along the ramp, then max for ever.
/// WarmupDecayLR: the same ramp, then down to min along a straight line that ends at total_num_steps.
class WarmupLR final : public Schedule {
 public:
  WarmupLR(const Type& type, const Params& params, std::vector<GroupInitial> initial, bool decays)
      : Schedule(type.name, params, std::move(initial)),
        ramp_(params),
        decays_(decays),
        total_(decays ? params.number("total_num_steps") : 0.0),
        min_lr_(params.per_group("warmup_min_lr", groups())) {
    std::vector<double> max_lr;
    for (const GroupInitial& group : this->initial()) max_lr.push_back(group.lr);
    if (params.has("warmup_max_lr")) max_lr = params.per_group("warmup_max_lr", groups());
    explain(type, max_lr);
    for (std::size_t g = 0; g < groups(); ++g) delta_.push_back(max_lr[g] - min_lr_[g]);
  }

 private:
  void explain(const Type& type, const std::vector<double>& max_lr) {
    if (const std::string text = unknown_ramp_warning(params()); !text.empty()) warn(text);
    if (decays_) {
      if (const std::string text = short_total_warning(total_, ramp_.steps()); !text.empty()) warn(text);
      const bool is_default =
          *params().find("warmup_max_lr") == config::default_value(*config::find_field(type.fields, "warmup_max_lr"));
      if (is_default && max_lr[0] != initial()[0].lr)
        warn(
            fmt::format("warmup_max_lr is {}, its default, and not the optimizer's lr {}; warmup_max_lr: null takes "
                        "the optimizer's",
                        max_lr[0], initial()[0].lr));
    }
    if (first_index() == -1)
      note(
          fmt::format("the first two updates use warmup_min_lr {}: what construction writes, and the start of the ramp",
                      min_lr_[0]));
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    if (index < 0) {
      for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = min_lr_[g];
      return;
    }
    double gamma = 1.0;
    if (index < ramp_.steps()) {
      gamma = ramp_.gamma(index);
    } else if (decays_) {
      gamma = std::max(
          0.0, (total_ - static_cast<double>(index)) / std::max(1.0, total_ - static_cast<double>(ramp_.steps())));
    }
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = min_lr_[g] + delta_[g] * gamma;
  }

  Ramp ramp_;
  bool decays_;
  double total_;
  std::vector<double> min_lr_;
  std::vector<double> delta_;  // max - min, the difference rounded once at construction
};

/// Scales each group's lr: warmup_min_ratio -> 1 along the ramp, then half a cosine down to cos_min_ratio.
/// Source of the cosine: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
class WarmupCosineLR final : public Schedule {
 public:
  WarmupCosineLR(const Type& type, const Params& params, std::vector<GroupInitial> initial)
      : Schedule(type.name, params, std::move(initial)),
        ramp_(params),
        total_(params.number("total_num_steps")),
        warmup_min_ratio_(params.number("warmup_min_ratio")),
        cos_min_ratio_(params.number("cos_min_ratio")) {
    if (const std::string text = unknown_ramp_warning(params); !text.empty()) warn(text);
    if (const std::string text = short_total_warning(total_, ramp_.steps()); !text.empty()) warn(text);
    if (cos_min_ratio_ > 1)
      warn(fmt::format(
          "cos_min_ratio {0} is above 1: after the ramp the learning rate rises to {0} times the optimizer's",
          cos_min_ratio_));
    if (first_index() == -1)
      note(
          fmt::format("the first update uses lr 0 whatever warmup_min_ratio says; the second uses warmup_min_ratio {} "
                      "times the optimizer's lr",
                      warmup_min_ratio_));
  }

 private:
  [[nodiscard]] double ratio(std::int64_t n) const {
    if (n < 0) return 0.0;
    if (n < ramp_.steps()) return warmup_min_ratio_ + ramp_.gamma(n) * (1.0 - warmup_min_ratio_);
    const double decay_steps = std::max(1.0, total_ - static_cast<double>(ramp_.steps()));
    const double progress = std::min(1.0, static_cast<double>(n - ramp_.steps() + 1) / decay_steps);
    const double cosine = (1 + std::cos(std::numbers::pi * progress)) / 2;
    return std::max(0.0, cos_min_ratio_ + (1.0 - cos_min_ratio_) * cosine);
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const double factor = ratio(index);
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = initial()[g].lr * factor;
  }

  Ramp ramp_;
  double total_;
  double warmup_min_ratio_;
  double cos_min_ratio_;
};

Field warmup_steps_field() {
  return {.name = "warmup_num_steps",
          .type = FieldType::integer,
          .default_text = "1000",
          .doc = "The length of the ramp; 1 is raised to 2.",
          .unit = "optimizer steps",
          .min = 1,
          .strict_integer = true};
}

Field warmup_type_field() {
  return {.name = "warmup_type",
          .type = FieldType::text,
          .default_text = "log",
          .doc = "The shape of the ramp: log or linear. Anything else warns and means log, as in DeepSpeed."};
}

Field total_steps_field(std::string doc) {
  return or_run_steps({.name = "total_num_steps",
                       .type = FieldType::number,
                       .doc = std::move(doc),
                       .unit = "optimizer steps",
                       .required = true});
}

Field min_lr_field() {
  return {.name = "warmup_min_lr",
          .type = FieldType::number_or_list,
          .default_text = "0.0",
          .doc = "Where the ramp starts, and where WarmupDecayLR ends."};
}

Field max_lr_field(std::string default_text, std::string doc) {
  return {.name = "warmup_max_lr",
          .type = FieldType::number_or_list,
          .default_text = std::move(default_text),
          .doc = std::move(doc),
          .nullable = true};
}

}  // namespace

const std::vector<Type>& warmup_types() {
  static const std::vector<Type> types = {
      {"WarmupLR",
       "A ramp, then constant. The first two updates use warmup_min_lr.",
       {min_lr_field(), max_lr_field("null", "Where the ramp ends. Absent or null: each group's optimizer lr."),
        warmup_steps_field(), warmup_type_field(), last_batch_iteration_field()},
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<WarmupLR>(type, params, std::move(initial), false);
       }},
      {"WarmupDecayLR",
       "A ramp, then a straight line down to warmup_min_lr.",
       {total_steps_field("Where the straight line reaches warmup_min_lr, counted from the start of training."),
        min_lr_field(), max_lr_field("0.001", "Where the ramp ends. Absent: 0.001; null: each group's optimizer lr."),
        warmup_steps_field(), warmup_type_field(), last_batch_iteration_field()},
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<WarmupLR>(type, params, std::move(initial), true);
       }},
      {"WarmupCosineLR",
       "A ramp, then half a cosine down; it scales the optimizer's lr.",
       {total_steps_field("Where the cosine ends, counted from the start of training."),
        {.name = "warmup_min_ratio",
         .type = FieldType::number,
         .default_text = "0.0",
         .doc = "Where the ramp starts, as a part of the optimizer's lr."},
        warmup_steps_field(),
        {.name = "cos_min_ratio",
         .type = FieldType::number,
         .default_text = "0.0001",
         .doc = "Where the cosine ends, as a part of the optimizer's lr."},
        warmup_type_field(),
        last_batch_iteration_field()},
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<WarmupCosineLR>(type, params, std::move(initial));
       }}};
  return types;
}

}  // namespace lockstep::sched
