#include <cmath>

#include "sched/parameters.hpp"

namespace lockstep::sched {
namespace {

/// lr_g = min_g (1 + rate t), t = (n + 1) / step_size: grows without an end, to find the largest usable lr.
/// Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
class LRRangeTest final : public Schedule {
 public:
  LRRangeTest(const Type& type, const Params& params, std::vector<GroupInitial> initial)
      : Schedule(type.name, params, std::move(initial)),
        min_lr_(params.per_group("lr_range_test_min_lr", groups())),
        step_size_(static_cast<double>(params.integer("lr_range_test_step_size"))),
        step_rate_(params.number("lr_range_test_step_rate")),
        staircase_(params.boolean("lr_range_test_staircase")) {
    if (step_rate_ < 0) warn("lr_range_test_step_rate is negative: the learning rate falls and passes below 0");
  }

 private:
  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    double t = static_cast<double>(index + 1) / step_size_;
    if (staircase_) t = std::floor(t);
    const double increase = 1 + step_rate_ * t;
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = min_lr_[g] * increase;
  }

  std::vector<double> min_lr_;
  double step_size_;
  double step_rate_;
  bool staircase_;
};

}  // namespace

const std::vector<Type>& lr_range_test_types() {
  static const std::vector<Type> types = {
      {"LRRangeTest",
       "The rate grows without end, to find the largest that still trains.",
       {{.name = "lr_range_test_min_lr",
         .type = FieldType::number_or_list,
         .default_text = "0.001",
         .doc = "Where the range test starts."},
        {.name = "lr_range_test_step_size",
         .type = FieldType::integer,
         .default_text = "2000",
         .doc = "The updates in which the learning rate grows by lr_range_test_step_rate times the start.",
         .unit = "optimizer steps",
         .min = 1,
         .strict_integer = true},
        {.name = "lr_range_test_step_rate",
         .type = FieldType::number,
         .default_text = "1.0",
         .doc = "The growth for each lr_range_test_step_size updates, as a multiple of the start."},
        {.name = "lr_range_test_staircase",
         .type = FieldType::boolean,
         .default_text = "false",
         .doc = "Grow in steps of lr_range_test_step_size updates instead of at every update."},
        last_batch_iteration_field()},
       [](const Type& type, const Params& params, std::vector<GroupInitial> initial) -> std::unique_ptr<Schedule> {
         return std::make_unique<LRRangeTest>(type, params, std::move(initial));
       }}};
  return types;
}

}  // namespace lockstep::sched
