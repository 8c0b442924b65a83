#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// A group's learning rate from its base lr, the optimizer's, after k calls of step().
using Formula = std::function<double(double base_lr, std::int64_t k)>;

/// torch.optim.lr_scheduler's schedules of the learning rate alone. torch writes most of them as a recurrence from one
/// update to the next; here each is the closed form, which any update can ask for.
class TorchLR final : public Schedule {
 public:
  TorchLR(const Type& type, const Params& params, std::vector<GroupInitial> initial, Formula formula)
      : Schedule(type.name, params, std::move(initial)), formula_(std::move(formula)) {
    if (!params.has("eta_min")) return;
    const double floor = params.number("eta_min");
    const auto below = [floor](const GroupInitial& group) { return group.lr < floor; };
    const auto group = std::find_if(this->initial().begin(), this->initial().end(), below);
    if (group != this->initial().end())
      warn(fmt::format("eta_min {} is above the optimizer's lr {}: instead of falling the learning rate rises to it",
                       floor, group->lr));
  }

 private:
  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const std::int64_t k = std::max<std::int64_t>(0, index + 1);
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = formula_(initial()[g].lr, k);
  }

  Formula formula_;
};

double power(double base, std::int64_t exponent) { return std::pow(base, static_cast<double>(exponent)); }

/// 1 + cos(pi a / b), rounded as torch rounds it.
double raised_cosine(std::int64_t a, std::int64_t b) {
  return 1.0 + std::cos(std::numbers::pi * static_cast<double>(a) / static_cast<double>(b));
}

/// min(k, total) / total.
double part(std::int64_t k, std::int64_t total) {
  return static_cast<double>(std::min(k, total)) / static_cast<double>(total);
}

Formula step(const Params& p) {
  return [size = p.integer("step_size"), gamma = p.number("gamma")](double base, std::int64_t k) {
    return base * power(gamma, k / size);
  };
}

Formula multi_step(const Params& p) {
  std::vector<std::int64_t> milestones;
  for (const ParamValue& entry : std::get<ParamValue::List>(p.find("milestones")->value))
    milestones.push_back(std::get<std::int64_t>(entry.value));
  std::sort(milestones.begin(), milestones.end());
  return [milestones, gamma = p.number("gamma")](double base, std::int64_t k) {
    return base * power(gamma, std::upper_bound(milestones.begin(), milestones.end(), k) - milestones.begin());
  };
}

Formula constant(const Params& p) {
  return [factor = p.number("factor"), total = p.integer("total_iters")](double base, std::int64_t k) {
    return k < total ? base * factor : base;
  };
}

Formula linear(const Params& p) {
  return [start = p.number("start_factor"), end = p.number("end_factor"), total = p.integer("total_iters")](
             double base, std::int64_t k) {
    return k < total ? base * (start + (end - start) * part(k, total)) : base * end;
  };
}

Formula exponential(const Params& p) {
  return [gamma = p.number("gamma")](double base, std::int64_t k) { return base * power(gamma, k); };
}

Formula polynomial(const Params& p) {
  return [total = p.integer("total_iters"), exponent = p.number("power")](double base, std::int64_t k) {
    return base * std::pow(1.0 - part(k, total), exponent);
  };
}

/// Down to eta_min in T_max updates, then up again, and so on: a cosine without an end.
/// Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without the
/// restarts.
///
/// From each minimum on torch scales the first step up, whose height 1 - cos(pi / T_max) is a difference of nearly
/// equal numbers. Its rounding stays in every later update (about T_max^2 / 10^17 of the rate), so it is taken over
/// here.
Formula cosine(const Params& p) {
  return [half = p.integer("T_max"), floor = p.number("eta_min")](double base, std::int64_t k) {
    if (k <= half) return floor + (base - floor) * raised_cosine(k, half) / 2;
    const std::int64_t first = k - (k - 1 - half) % (2 * half);  // the first update after the last minimum
    const double height = (1.0 - std::cos(std::numbers::pi / static_cast<double>(half))) / 2;
    return floor + (base - floor) * height * (raised_cosine(k, half) / raised_cosine(first, half));
  };
}

/// Source: as above, equation 5.
Formula warm_restarts(const Params& p) {
  return
      [first = p.integer("T_0"), mult = p.integer("T_mult"), floor = p.number("eta_min")](double base, std::int64_t k) {
        std::int64_t length = first;
        if (mult == 1) k %= first;
        while (k >= length) {
          k -= length;
          constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
          length = length > most / mult ? most : length * mult;
        }
        return floor + (base - floor) * raised_cosine(k, length) / 2;
      };
}

template <Formula (*make_formula)(const Params&)>
std::unique_ptr<Schedule> make(const Type& type, const Params& params, std::vector<GroupInitial> initial) {
  return std::make_unique<TorchLR>(type, params, std::move(initial), make_formula(params));
}

/// A part of the optimizer's lr; torch refuses more than 1 as well.
Field factor_field(std::string name, std::string default_text, std::string doc, bool zero_allowed) {
  Field field = number_field(std::move(name), std::move(default_text), std::move(doc), 0.0);
  field.max = 1;
  field.min_open = !zero_allowed;
  return field;
}

Field gamma_field(std::string default_text, std::string doc) {
  return number_field("gamma", std::move(default_text), std::move(doc), 0.0);
}

Field eta_min_field() { return number_field("eta_min", "0.0", "The lowest rate, the same for every group."); }

Field milestones_field() {
  Field field = steps_field("milestones", "", "The updates at which the lr drops; one named twice counts twice.", 0);
  field.type = FieldType::integer_list;
  return field;
}

}  // namespace

const std::vector<Type>& torch_decay_types() {
  static const std::vector<Type> types = {
      {"StepLR",
       "torch's: the optimizer's lr, multiplied by gamma every step_size updates.",
       {steps_field("step_size", "", "The updates between two drops.", 1),
        gamma_field("0.1", "The factor of each drop.")},
       make<step>},
      {"MultiStepLR",
       "torch's: the optimizer's lr, multiplied by gamma at each milestone.",
       {milestones_field(), gamma_field("0.1", "The factor of each drop.")},
       make<multi_step>},
      {"ConstantLR",
       "torch's: a part of the optimizer's lr for total_iters updates, then all of it.",
       {factor_field("factor", "0.3333333333333333", "The part of the first updates.", true),
        steps_field("total_iters", "5", "How many updates use the part.", 1)},
       make<constant>},
      {"LinearLR",
       "torch's: a straight line from one part of the optimizer's lr to another.",
       {factor_field("start_factor", "0.3333333333333333", "The part of update 0.", false),
        factor_field("end_factor", "1.0", "The part from update total_iters on.", true),
        or_run_steps(steps_field("total_iters", "5", "The update at which the line ends.", 1))},
       make<linear>},
      {"ExponentialLR",
       "torch's: the optimizer's lr, multiplied by gamma at every update.",
       {gamma_field("", "The factor of each update.")},
       make<exponential>},
      {"PolynomialLR",
       "torch's: from the optimizer's lr to 0 along a power of what is left.",
       {or_run_steps(steps_field("total_iters", "5", "The update at which the rate is 0.", 1)),
        number_field("power", "1.0", "The exponent of the remaining part.", 0.0)},
       make<polynomial>},
      {"CosineAnnealingLR",
       "torch's: a cosine from the optimizer's lr to eta_min and back, again and again.",
       {or_run_steps(steps_field("T_max", "", "The updates from the top to eta_min; then the rate rises again.", 1)),
        eta_min_field()},
       make<cosine>},
      {"CosineAnnealingWarmRestarts",
       "torch's: half a cosine from the optimizer's lr to eta_min, again and again from the top.",
       {steps_field("T_0", "", "The updates of the first half cosine.", 1),
        steps_field("T_mult", "1", "Each half cosine is this many times as long as the one before.", 1),
        eta_min_field()},
       make<warm_restarts>}};
  return types;
}

}  // namespace lockstep::sched
