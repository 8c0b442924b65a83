#include <cmath>

#include "core/error.hpp"
#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// One rise and one fall of the lr, with momentum the other way round, then an optional decay of both.
/// Source: Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018, section 4.
class OneCycle final : public Schedule {
 public:
  OneCycle(const Type& type, const Params& params, std::vector<GroupInitial> initial)
      : Schedule(type.name, params, std::move(initial)),
        min_lr_(params.per_group("cycle_min_lr", groups())),
        max_lr_(params.per_group("cycle_max_lr", groups())),
        min_momentum_(params.per_group("cycle_min_mom", groups())),
        max_momentum_(params.per_group("cycle_max_mom", groups())),
        first_size_(params.number("cycle_first_step_size")),
        second_size_(params.has("cycle_second_step_size") ? params.number("cycle_second_step_size") : first_size_),
        first_stairs_(params.number("cycle_first_stair_count")),
        second_stairs_(params.has("cycle_second_stair_count") ? params.number("cycle_second_stair_count")
                                                              : first_stairs_),
        decay_size_(params.number("decay_step_size")),
        decay_lr_rate_(params.number("decay_lr_rate")),
        decay_momentum_rate_(params.number("decay_mom_rate")) {
    total_size_ = first_size_ + second_size_;
    first_part_ = first_size_ / total_size_;
    choose_momentum(params.boolean("cycle_momentum"), params.boolean("cycle_sgd_momentum"));
  }

 private:
  static constexpr double cycled_beta2 = 0.99;  // DeepSpeed writes it whatever the optimizer had

  void choose_momentum(bool wanted, bool sgd_wanted) {
    const GroupInitial& first = initial()[0];
    cycles_betas_ = wanted && first.has_betas;
    cycles_momentum_ = wanted && sgd_wanted && !first.has_betas;
    if (wanted && !first.has_betas && !sgd_wanted)
      warn(
          "the optimizer has no betas, so momentum is left alone, as in DeepSpeed; cycle_sgd_momentum: true cycles "
          "SGD's momentum");
    if (sgd_wanted && first.has_betas) warn("cycle_sgd_momentum has no effect: the optimizer has betas");
    if (cycles_momentum_)
      for (const GroupInitial& group : initial())
        if (group.momentum == 0)
          fail(ErrorKind::config,
               "scheduler OneCycle: cycle_sgd_momentum needs an optimizer that keeps momentum; give it a momentum "
               "above 0 (optimizer.params.momentum), the schedule then replaces the value");
    if (!cycles_betas_ && !cycles_momentum_) return;
    note(fmt::format("update 0 uses cycle_min_mom {}, although the cycle itself starts near cycle_max_mom {}",
                     min_momentum_[0], max_momentum_[0]));
    if (cycles_betas_ && first.beta2 != cycled_beta2)
      note(fmt::format("beta2 becomes {} (the optimizer had {}), as in DeepSpeed; cycle_momentum: false keeps it",
                       cycled_beta2, first.beta2));
    if (decay_size_ != 0 && decay_momentum_rate_ > 0)
      warn("decay_mom_rate above 0 makes momentum grow without bound after the cycle, past 1, as in DeepSpeed");
  }

  /// The height in the cycle, 0 at the minimum and 1 at the top.
  [[nodiscard]] double cycle_scale(double position) const {
    const double q = position / total_size_;
    const double cycle = std::floor(1 + q);
    const double x = (1.0 + q) - cycle;  // not q: the rounding of this form is DeepSpeed's
    const bool rising = x <= first_part_;
    const double stairs = rising ? first_stairs_ : second_stairs_;
    if (!(stairs > 0)) return rising ? x / first_part_ : (x - 1) / (first_part_ - 1);
    // The side is judged again here, on the position itself: at the top both tests can differ in the last bit.
    const double inside = std::fmod(position, total_size_);
    const double progress =
        inside <= first_size_ ? inside * stairs / first_size_ : (total_size_ - inside) * stairs / second_size_;
    return std::floor(progress) / stairs;
  }

  void write_momentum(StepValues& out, double value) const {
    if (cycles_betas_) {
      out.beta1 = value;
      out.beta2 = cycled_beta2;
    } else if (cycles_momentum_) {
      out.momentum = value;
    }
  }

  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const double n = static_cast<double>(index);
    if (n < total_size_) {
      const double scale = cycle_scale(n + 1);
      for (std::size_t g = 0; g < out.size(); ++g) {
        out[g].lr = min_lr_[g] + (max_lr_[g] - min_lr_[g]) * scale;
        write_momentum(out[g], max_momentum_[g] - (max_momentum_[g] - min_momentum_[g]) * scale);
      }
      return;
    }
    const double elapsed = (n - total_size_) + 1;
    const bool lr_decays = decay_size_ != 0 && decay_lr_rate_ != 0;
    const bool momentum_decays = decay_size_ != 0 && decay_momentum_rate_ != 0;
    for (std::size_t g = 0; g < out.size(); ++g) {
      out[g].lr = lr_decays ? min_lr_[g] / (1 + decay_lr_rate_ * (elapsed / decay_size_)) : min_lr_[g];
      write_momentum(out[g], momentum_decays ? max_momentum_[g] * (1 + decay_momentum_rate_ * (elapsed / decay_size_))
                                             : max_momentum_[g]);
    }
  }

  void at_construction(std::span<StepValues> out) const override {
    for (std::size_t g = 0; g < out.size(); ++g) {
      out[g].lr = min_lr_[g];
      write_momentum(out[g], min_momentum_[g]);
    }
  }

  std::vector<double> min_lr_, max_lr_, min_momentum_, max_momentum_;
  double first_size_, second_size_, first_stairs_, second_stairs_;
  double decay_size_, decay_lr_rate_, decay_momentum_rate_;
  double total_size_ = 0;
  double first_part_ = 0;
  bool cycles_betas_ = false;
  bool cycles_momentum_ = false;
};

Field in_steps(Field field) {
  field.unit = "optimizer steps";
  return field;
}

Fields one_cycle_fields() {
  Field min_lr = {.name = "cycle_min_lr",
                  .type = FieldType::number_or_list,
                  .default_text = "",
                  .doc = "Where the cycle starts and ends.",
                  .required = true};
  Field max_lr = {.name = "cycle_max_lr",
                  .type = FieldType::number_or_list,
                  .default_text = "",
                  .doc = "The top of the cycle.",
                  .required = true};
  Field first = in_steps(number_field("cycle_first_step_size", "2000", "The length of the rise; may be a fraction."));
  first.min = 0;
  first.min_open = true;
  Field second = in_steps(
      number_field("cycle_second_step_size", "null", "The length of the fall; absent or null: as long as the rise."));
  second.min = 0;
  second.nullable = true;
  Field second_stairs = number_field("cycle_second_stair_count", "null",
                                     "Stairs in the fall; absent or null: as many as in the rise, 0: smooth.");
  second_stairs.nullable = true;
  return {std::move(min_lr),
          std::move(max_lr),
          number_field("decay_lr_rate", "0.0", "After the cycle lr = cycle_min_lr / (1 + rate d / decay_step_size)."),
          std::move(first),
          std::move(second),
          number_field("cycle_first_stair_count", "0", "Stairs in the rise; 0: smooth."),
          std::move(second_stairs),
          in_steps(number_field("decay_step_size", "0", "The unit of time of both decays; 0: no decay at all.")),
          {.name = "cycle_momentum",
           .type = FieldType::boolean,
           .default_text = "true",
           .doc = "Move beta1 against the learning rate. Sets beta2 to 0.99, as DeepSpeed does."},
          {.name = "cycle_min_mom",
           .type = FieldType::number_or_list,
           .default_text = "0.8",
           .doc = "beta1 at the top of the cycle and in update 0."},
          {.name = "cycle_max_mom",
           .type = FieldType::number_or_list,
           .default_text = "0.9",
           .doc = "beta1 at both ends of the cycle."},
          number_field("decay_mom_rate", "0.0",
                       "After the cycle beta1 = cycle_max_mom (1 + rate d / decay_step_size), which grows past 1."),
          {.name = "cycle_sgd_momentum",
           .type = FieldType::boolean,
           .default_text = "false",
           .doc = "Cycle SGD's momentum between the same bounds. Not a DeepSpeed key: there SGD's momentum is left "
                  "alone."},
          last_batch_iteration_field()};
}

}  // namespace

const std::vector<Type>& one_cycle_types() {
  static const std::vector<Type> types = {
      {"OneCycle", "One rise and fall of the rate, with the momentum moving against it, then a decay.",
       one_cycle_fields(),
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<OneCycle>(type, params, std::move(initial));
       }}};
  return types;
}

}  // namespace lockstep::sched
