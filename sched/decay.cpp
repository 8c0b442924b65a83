#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// The factor after the warm-up, as a function of the updates since its end; the warm-up rises to `peak`.
struct Shape {
  std::function<double(std::int64_t)> after;
  double peak = 1;

  template <class Function>
  Shape(Function function, double top = 1) : after(std::move(function)), peak(top) {}
};

/// lr_g = base_g f(k): f(k) = peak (k + 1) / warmup_steps while k < warmup_steps, then after(k - warmup_steps).
class ScaledLR final : public Schedule {
 public:
  ScaledLR(const Type& type, const Params& params, std::vector<GroupInitial> initial, Shape shape)
      : Schedule(type.name, params, std::move(initial)),
        warmup_(params.integer("warmup_steps")),
        shape_(std::move(shape)) {
    if (params.has("total_steps") && params.integer("total_steps") <= warmup_)
      warn(
          fmt::format("total_steps {} is not above warmup_steps {}: the ramp is walked to its end, then the learning "
                      "rate drops to its final value at once",
                      params.integer("total_steps"), warmup_));
    if (params.has("final_ratio") && params.number("final_ratio") > 1)
      warn(
          fmt::format("final_ratio {0} is above 1: instead of decaying the learning rate rises to {0} times the "
                      "optimizer's",
                      params.number("final_ratio")));
  }

 private:
  [[nodiscard]] double factor(std::int64_t update) const {
    if (update < warmup_) return shape_.peak * (static_cast<double>(update + 1) / static_cast<double>(warmup_));
    return shape_.after(update - warmup_);
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const double f = factor(std::max<std::int64_t>(0, index + 1));
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = initial()[g].lr * f;
  }

  std::int64_t warmup_;
  Shape shape_;
};

/// From 1 at progress 0 to `floor` at progress 1 along `curve`, which falls from 1 to 0.
double fall(double floor, double curve) { return floor + (1.0 - floor) * curve; }

double half_cosine(double progress) { return (1.0 + std::cos(std::numbers::pi * progress)) / 2.0; }

double divide(std::int64_t a, std::int64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

std::int64_t updates_after_warmup(const Params& p) { return p.integer("total_steps") - p.integer("warmup_steps"); }

Shape constant(const Params& p) {
  const double factor = p.number("factor");
  return {[factor](std::int64_t) { return factor; }, factor};
}

/// floor + (1 - floor) (1 - progress)^power.
Shape falling(const Params& p, double power) {
  return [span = updates_after_warmup(p), floor = p.number("final_ratio"), power](std::int64_t j) {
    if (j >= span) return floor;
    const double left = 1.0 - divide(j, span);
    return fall(floor, power == 1.0 ? left : std::pow(left, power));
  };
}

Shape linear(const Params& p) { return falling(p, 1.0); }
Shape polynomial(const Params& p) { return falling(p, p.number("power")); }

/// Half a cosine over the whole span, or one after another, each cycle_mult times as long as the one before.
/// Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5.
Shape cosine(const Params& p) {
  return [span = updates_after_warmup(p), floor = p.number("final_ratio"), first = p.integer("first_cycle_steps"),
          mult = p.number("cycle_mult")](std::int64_t j) {
    if (j >= span) return floor;
    if (first == 0) return fall(floor, half_cosine(divide(j, span)));
    double position = static_cast<double>(j);
    double length = static_cast<double>(first);
    if (mult == 1.0) position = std::fmod(position, length);
    // Far along many cycles that hardly grow, over all of them but a few at once: n cycles have first (mult^n - 1) /
    // (mult - 1) updates.
    const double cycles = std::log1p(position / length * (mult - 1.0)) / std::log(mult);
    if (cycles > 1000) {
      const double skipped = std::floor(cycles) - 2;
      position -= length * std::expm1(skipped * std::log(mult)) / (mult - 1.0);
      length *= std::pow(mult, skipped);
    }
    for (; position >= length; length *= mult) position -= length;
    return fall(floor, half_cosine(position / length));
  };
}

Shape step(const Params& p) {
  return [size = p.integer("step_size"), gamma = p.number("gamma")](std::int64_t j) {
    return std::pow(gamma, static_cast<double>(j / size));
  };
}

Shape multi_step(const Params& p) {
  std::vector<std::int64_t> milestones;
  for (const ParamValue& entry : std::get<ParamValue::List>(p.find("milestones")->value))
    milestones.push_back(std::get<std::int64_t>(entry.value));
  std::sort(milestones.begin(), milestones.end());
  return [milestones, gamma = p.number("gamma"), warmup = p.integer("warmup_steps")](std::int64_t j) {
    const auto passed = std::upper_bound(milestones.begin(), milestones.end(), warmup + j) - milestones.begin();
    return std::pow(gamma, static_cast<double>(passed));
  };
}

Shape exponential(const Params& p) {
  return [gamma = p.number("gamma")](std::int64_t j) { return std::pow(gamma, static_cast<double>(j)); };
}

/// sqrt(W / (W + j)) with W the warm-up, at least 1.
/// Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3, scaled to reach 1.
Shape inverse_sqrt(const Params& p) {
  return [w = std::max<std::int64_t>(1, p.integer("warmup_steps"))](std::int64_t j) {
    return std::sqrt(divide(w, w + j));
  };
}

/// Warm-up, stable, decay. Source: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with
/// Scalable Training Strategies", 2024, section 4; the 1 - sqrt shape: Haegele et al., "Scaling Laws and
/// Compute-Optimal Training Beyond Fixed Training Durations", 2024.
Shape warmup_stable_decay(const Params& p) {
  return [stable = p.integer("stable_steps"), decay = p.integer("decay_steps"), floor = p.number("final_ratio"),
          curve = p.text("decay")](std::int64_t j) {
    if (j < stable) return 1.0;
    if (j >= stable + decay) return floor;
    const double progress = divide(j - stable, decay);
    if (curve == "cosine") return fall(floor, half_cosine(progress));
    return fall(floor, 1.0 - (curve == "sqrt" ? std::sqrt(progress) : progress));
  };
}

template <Shape (*make_shape)(const Params&)>
std::unique_ptr<Schedule> make(const Type& type, const Params& params, std::vector<GroupInitial> initial) {
  return std::make_unique<ScaledLR>(type, params, std::move(initial), make_shape(params));
}

Field warmup_field() {
  return steps_field("warmup_steps", "0", "A linear ramp first: update k uses (k + 1) / warmup_steps of the lr.", 0);
}

Field total_field() {
  return or_run_steps(
      steps_field("total_steps", "", "Where the decay ends, counted from the start, warm-up included.", 1));
}

Field final_field() {
  return number_field("final_ratio", "0.0", "The end of the decay, as a part of the optimizer's lr; held afterwards.");
}

Field gamma_field(std::string default_text, std::string doc) {
  Field field = number_field("gamma", std::move(default_text), std::move(doc), 0.0);
  field.min_open = true;
  return field;
}

}  // namespace

const std::vector<Type>& decay_types() {
  static const std::vector<Type> types = {
      {"Constant",
       "The optimizer's lr times a factor.",
       {number_field("factor", "1.0", "Multiplies the optimizer's lr."), warmup_field()},
       make<constant>},
      {"LinearDecay",
       "A straight line from the optimizer's lr to a part of it.",
       {total_field(), final_field(), warmup_field()},
       make<linear>},
      {"CosineDecay",
       "Half a cosine from the optimizer's lr to a part of it, with restarts on request.",
       {total_field(), final_field(),
        steps_field("first_cycle_steps", "0", "The length of the first cosine; 0: one cosine to total_steps.", 0),
        number_field("cycle_mult", "1.0", "Each cycle is this many times as long as the one before.", 1.0),
        warmup_field()},
       make<cosine>},
      {"StepDecay",
       "The optimizer's lr, multiplied by gamma every step_size updates.",
       {steps_field("step_size", "", "The updates between two drops.", 1),
        gamma_field("0.1", "The factor of each drop."), warmup_field()},
       make<step>},
      {"MultiStepDecay",
       "The optimizer's lr, multiplied by gamma at each milestone.",
       {{.name = "milestones",
         .type = FieldType::integer_list,
         .default_text = "",
         .doc = "The updates, counted from the start of training, at which the lr drops.",
         .unit = "optimizer steps",
         .required = true,
         .min = 1,
         .strict_integer = true},
        gamma_field("0.1", "The factor of each drop."),
        warmup_field()},
       make<multi_step>},
      {"ExponentialDecay",
       "The optimizer's lr, multiplied by gamma at every update.",
       {gamma_field("", "The factor of each update."), warmup_field()},
       make<exponential>},
      {"PolynomialDecay",
       "From the optimizer's lr to a part of it along a power of what is left.",
       {total_field(), number_field("power", "1.0", "The exponent of the remaining part.", 0.0), final_field(),
        warmup_field()},
       make<polynomial>},
      {"InverseSqrt",
       "The optimizer's lr, falling with the root of the updates since the warm-up.",
       {warmup_field()},
       make<inverse_sqrt>},
      {"WSD",
       "Warm-up, a stable part at the optimizer's lr, then a decay to a part of it.",
       {steps_field("stable_steps", "", "The updates at the full lr after the warm-up.", 0),
        steps_field("decay_steps", "", "The updates of the decay.", 1),
        {.name = "decay",
         .type = FieldType::choice,
         .default_text = "linear",
         .doc = "The shape of the decay.",
         .choices = {"linear", "cosine", "sqrt"}},
        final_field(),
        warmup_field()},
       make<warmup_stable_decay>}};
  return types;
}

}  // namespace lockstep::sched
