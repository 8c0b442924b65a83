#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// What OneCycleLR and CyclicLR share: they replace the optimizer's lr, and move beta1 or SGD's momentum against it.
class TorchCycle : public Schedule {
 protected:
  TorchCycle(const Type& type, const Params& params, std::vector<GroupInitial> initial)
      : Schedule(type.name, params, std::move(initial)),
        base_momentum_(params.per_group("base_momentum", groups())),
        max_momentum_(params.per_group("max_momentum", groups())),
        cycles_momentum_(params.boolean("cycle_momentum")) {
    if (!cycles_momentum_) return;
    for (const GroupInitial& group : this->initial())
      if (!group.has_betas && group.momentum == 0)
        fail(ErrorKind::config,
             "scheduler {}: cycle_momentum needs an optimizer that keeps momentum; give it a momentum above 0 "
             "(optimizer.params.momentum), the schedule then replaces the value, or set cycle_momentum: false",
             type.name);
    note(
        fmt::format("{} moves between base_momentum {} and max_momentum {}, whatever the optimizer has; "
                    "cycle_momentum: false keeps the optimizer's",
                    this->initial()[0].has_betas ? "beta1" : "momentum", base_momentum_[0], max_momentum_[0]));
  }

  void write_momentum(std::size_t group, StepValues& out, double value) const {
    (initial()[group].has_betas ? out.beta1 : out.momentum) = value;
  }

  std::vector<double> base_momentum_, max_momentum_;
  bool cycles_momentum_;
};

/// torch's 1cycle: from max_lr / div_factor to max_lr, then to a part of where it began, each along half a cosine or a
/// straight line; momentum the other way round.
/// Source: Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.
class OneCycleLR final : public TorchCycle {
 public:
  OneCycleLR(const Type& type, const Params& params, std::vector<GroupInitial> given)
      : TorchCycle(type, params, std::move(given)),
        total_(params.integer("total_steps")),
        cosine_(params.text("anneal_strategy") == "cos") {
    const double rise = params.number("pct_start") * static_cast<double>(total_);
    if (rise == 1.0)
      fail(
          ErrorKind::config,
          "scheduler OneCycleLR: pct_start {} of total_steps {} is one update, a rise without a length, at which torch "
          "divides by zero; take another pct_start",
          params.number("pct_start"), total_);
    const std::vector<double> top = params.per_group("max_lr", groups());
    for (std::size_t g = 0; g < groups(); ++g) {
      const double start = top[g] / params.number("div_factor");
      levels_.push_back({start, top[g], start / params.number("final_div_factor")});
    }
    phases_.push_back({rise - 1, &Levels::start, &Levels::top, true, false});
    const bool three = params.boolean("three_phase");
    if (three) {
      phases_.push_back({2 * params.number("pct_start") * static_cast<double>(total_) - 2, &Levels::top, &Levels::start,
                         false, true});
      phases_.push_back({static_cast<double>(total_ - 1), &Levels::start, &Levels::end, true, true});
    } else {
      phases_.push_back({static_cast<double>(total_ - 1), &Levels::top, &Levels::end, false, true});
    }
    note(
        fmt::format("the optimizer's lr {} is not used: the first update uses max_lr / div_factor = {}; after "
                    "total_steps updates, where torch stops with an error, the last values are held",
                    initial()[0].lr, levels_[0].start));
  }

 private:
  struct Levels {
    double start, top, end;
  };
  struct Phase {
    double last;  ///< the update that has the values of its end; may be a fraction
    double Levels::*from;
    double Levels::*to;
    bool from_max_momentum, to_max_momentum;
  };

  /// From `from` at part 0 to `to` at part 1.
  [[nodiscard]] double anneal(double from, double to, double part) const {
    if (!cosine_) return (to - from) * part + from;
    return to + (from - to) / 2.0 * (std::cos(std::numbers::pi * part) + 1.0);
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const auto k = static_cast<double>(std::clamp<std::int64_t>(index + 1, 0, total_ - 1));
    std::size_t i = 0;
    double begin = 0;
    for (; i + 1 < phases_.size() && k > phases_[i].last; ++i) begin = phases_[i].last;
    const Phase& phase = phases_[i];
    const double part = (k - begin) / (phase.last - begin);
    for (std::size_t g = 0; g < out.size(); ++g) {
      out[g].lr = anneal(levels_[g].*phase.from, levels_[g].*phase.to, part);
      if (cycles_momentum_)
        write_momentum(g, out[g],
                       anneal(phase.from_max_momentum ? max_momentum_[g] : base_momentum_[g],
                              phase.to_max_momentum ? max_momentum_[g] : base_momentum_[g], part));
    }
  }

  std::int64_t total_;
  bool cosine_;
  std::vector<Levels> levels_;
  std::vector<Phase> phases_;
};

/// torch's cyclical rate: triangles without an end, of one height or of falling ones.
/// Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
class CyclicLR final : public TorchCycle {
 public:
  CyclicLR(const Type& type, const Params& params, std::vector<GroupInitial> given)
      : TorchCycle(type, params, std::move(given)),
        base_lr_(params.per_group("base_lr", groups())),
        max_lr_(params.per_group("max_lr", groups())),
        up_(static_cast<double>(params.integer("step_size_up"))),
        size_(up_ + (params.has("step_size_down") ? static_cast<double>(params.integer("step_size_down")) : up_)),
        mode_(params.text("mode")),
        gamma_(params.number("gamma")) {
    if (mode_ != "exp_range" && gamma_ != 1)
      warn(fmt::format("gamma {} has no effect: mode {} does not use it, exp_range does", gamma_, mode_));
    note(fmt::format("the optimizer's lr {} is not used: the first update uses base_lr {}", initial()[0].lr,
                     base_lr_[0]));
  }

 private:
  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const auto k = static_cast<double>(std::max<std::int64_t>(0, index + 1));
    const double cycle = std::floor(1 + k / size_);
    const double x = 1.0 + k / size_ - cycle;  // not k / size_: the rounding of this form is torch's
    const double rise = up_ / size_;
    const double height = x <= rise ? x / rise : (x - 1) / (rise - 1);
    double scale = 1;
    if (mode_ == "triangular2") scale = 1 / std::pow(2.0, cycle - 1);
    if (mode_ == "exp_range") scale = std::pow(gamma_, k);
    for (std::size_t g = 0; g < out.size(); ++g) {
      out[g].lr = base_lr_[g] + (max_lr_[g] - base_lr_[g]) * height * scale;
      if (cycles_momentum_)
        write_momentum(g, out[g], max_momentum_[g] - (max_momentum_[g] - base_momentum_[g]) * height * scale);
    }
  }

  std::vector<double> base_lr_, max_lr_;
  double up_, size_;
  std::string mode_;
  double gamma_;
};

Field per_group_field(std::string name, std::string default_text, std::string doc) {
  Field field = number_field(std::move(name), std::move(default_text), std::move(doc));
  field.type = FieldType::number_or_list;
  return field;
}

Field above_zero(Field field) {
  field.min = 0;
  field.min_open = true;
  return field;
}

void add_momentum_fields(Fields& fields, std::string base, std::string max) {
  fields.push_back({.name = "cycle_momentum",
                    .type = FieldType::boolean,
                    .default_text = "true",
                    .doc = "Move beta1, or SGD's momentum, against the learning rate."});
  fields.push_back(per_group_field("base_momentum", std::move(base), "beta1 or momentum where the rate is highest."));
  fields.push_back(per_group_field("max_momentum", std::move(max), "beta1 or momentum where the rate is lowest."));
}

Fields one_cycle_fields() {
  Field pct_start = number_field("pct_start", "0.3", "The rise, as a part of total_steps.", 0.0);
  pct_start.max = 1;
  Fields fields = {
      per_group_field("max_lr", "", "The top of the cycle."),
      or_run_steps(steps_field("total_steps", "", "The length of the cycle; afterwards the last values are held.", 1)),
      std::move(pct_start),
      {.name = "anneal_strategy",
       .type = FieldType::choice,
       .default_text = "cos",
       .doc = "The shape of rise and fall.",
       .choices = {"cos", "linear"}}};
  add_momentum_fields(fields, "0.85", "0.95");
  fields.push_back(above_zero(number_field("div_factor", "25.0", "Update 0 uses max_lr / div_factor.")));
  fields.push_back(above_zero(
      number_field("final_div_factor", "10000.0", "The cycle ends at max_lr / div_factor / final_div_factor.")));
  fields.push_back({.name = "three_phase",
                    .type = FieldType::boolean,
                    .default_text = "false",
                    .doc = "Fall to where the cycle began first, as long as the rise took, then to the end."});
  return fields;
}

Fields cyclic_fields() {
  Field down = steps_field("step_size_down", "null", "The length of each fall; absent or null: as long as a rise.", 0);
  down.nullable = true;
  Fields fields = {per_group_field("base_lr", "", "The lowest rate, where each cycle starts and ends."),
                   per_group_field("max_lr", "", "The top of the first cycle."),
                   steps_field("step_size_up", "2000", "The length of each rise.", 1),
                   std::move(down),
                   {.name = "mode",
                    .type = FieldType::choice,
                    .default_text = "triangular",
                    .doc = "The height of later cycles: the same, halved from cycle to cycle, or times gamma^k.",
                    .choices = {"triangular", "triangular2", "exp_range"}},
                   number_field("gamma", "1.0", "exp_range: the factor of each update.", 0.0)};
  add_momentum_fields(fields, "0.8", "0.9");
  return fields;
}

template <class Cycle>
std::unique_ptr<Schedule> make(const Type& type, const Params& params, std::vector<GroupInitial> initial) {
  return std::make_unique<Cycle>(type, params, std::move(initial));
}

}  // namespace

const std::vector<Type>& torch_cycle_types() {
  static const std::vector<Type> types = {
      {"OneCycleLR", "torch's: one rise and a fall far below its start, with the momentum moving against it.",
       one_cycle_fields(), make<OneCycleLR>},
      {"CyclicLR", "torch's: rises and falls again and again, with the momentum moving against them.", cyclic_fields(),
       make<CyclicLR>}};
  return types;
}

}  // namespace lockstep::sched
