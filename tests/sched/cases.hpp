#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "core/error.hpp"
#include "sched/schedule.hpp"

namespace lockstep::sched {

using config::Field;
using config::FieldType;
using config::Params;
using config::ParamValue;

inline std::vector<GroupInitial> adam_groups(std::size_t n = 1) {
  std::vector<GroupInitial> groups;
  for (std::size_t g = 0; g < n; ++g)
    groups.push_back({{.lr = 0.5 / static_cast<double>(g + 1),
                       .beta1 = 0.9,
                       .beta2 = 0.999,
                       .weight_decay = 0.1 * static_cast<double>(g)},
                      true});
  return groups;
}

inline std::vector<GroupInitial> sgd_groups() { return {{{.lr = 0.5, .momentum = 0.9}, false}}; }

/// A stage of a Sequence; the last one has 0 steps here, which stands for none.
inline ParamValue::Block stage(std::int64_t steps, const char* type, const Params& params) {
  ParamValue::Block block;
  if (steps != 0) block.emplace_back("steps", steps);
  block.emplace_back("type", type);
  block.emplace_back("params", ParamValue::Block(params.all().begin(), params.all().end()));
  return block;
}

/// A type with valid parameters, so that laws can be stated for every one.
struct Case {
  const char* type;
  Params params;
};

inline std::vector<Case> cases() {
  return {{"LRRangeTest", {{"lr_range_test_step_size", 7}}},
          {"OneCycle",
           {{"cycle_min_lr", 0.01},
            {"cycle_max_lr", 0.1},
            {"cycle_first_step_size", 9},
            {"decay_step_size", 3},
            {"decay_lr_rate", 0.5},
            {"decay_mom_rate", 0.01}}},
          {"WarmupLR", {{"warmup_num_steps", 8}}},
          {"WarmupDecayLR", {{"warmup_num_steps", 8}, {"total_num_steps", 20}}},
          {"WarmupCosineLR", {{"warmup_num_steps", 8}, {"total_num_steps", 20}}},
          {"Constant", {{"factor", 0.5}}},
          {"LinearDecay", {{"total_steps", 20}, {"warmup_steps", 4}, {"final_ratio", 0.1}}},
          {"CosineDecay", {{"total_steps", 20}, {"warmup_steps", 4}, {"final_ratio", 0.1}}},
          {"StepDecay", {{"step_size", 5}, {"gamma", 0.5}}},
          {"MultiStepDecay", {{"milestones", ParamValue::List{4, 9}}}},
          {"ExponentialDecay", {{"gamma", 0.9}}},
          {"PolynomialDecay", {{"total_steps", 20}, {"power", 2.0}}},
          {"InverseSqrt", {{"warmup_steps", 4}}},
          {"WSD", {{"stable_steps", 5}, {"decay_steps", 5}, {"decay", "cosine"}}},
          {"StepLR", {{"step_size", 5}}},
          {"MultiStepLR", {{"milestones", ParamValue::List{4, 9}}}},
          {"ConstantLR", {}},
          {"LinearLR", {}},
          {"ExponentialLR", {{"gamma", 0.9}}},
          {"PolynomialLR", {{"total_iters", 20}, {"power", 2.0}}},
          {"CosineAnnealingLR", {{"T_max", 9}, {"eta_min", 0.01}}},
          {"CosineAnnealingWarmRestarts", {{"T_0", 5}, {"T_mult", 2}}},
          {"OneCycleLR", {{"max_lr", 0.1}, {"total_steps", 20}}},
          {"CyclicLR", {{"base_lr", 0.01}, {"max_lr", 0.1}, {"step_size_up", 4}, {"mode", "triangular2"}}},
          {"SequentialLR",
           {{"schedulers", ParamValue::List{stage(0, "LinearLR", {}), stage(0, "ExponentialLR", {{"gamma", 0.9}}),
                                            stage(0, "CosineAnnealingLR", {{"T_max", 9}})}},
            {"milestones", ParamValue::List{5, 14}}}},
          {"ReduceLROnPlateau", {{"patience", 2}}},
          {"Sequence",
           {{"stages", ParamValue::List{stage(5, "WarmupLR", {{"warmup_num_steps", 4}}),
                                        stage(9, "OneCycleLR", {{"max_lr", 0.1}, {"total_steps", 9}}),
                                        stage(0, "CosineAnnealingLR", {{"T_max", 9}})}}}}};
}

inline double lr_at(const Schedule& schedule, std::int64_t update, std::size_t group = 0) {
  std::vector<StepValues> values(schedule.groups());
  schedule.values_at(update, values);
  return values[group].lr;
}

inline StepValues values_at(const Schedule& schedule, std::int64_t update) {
  std::vector<StepValues> values(schedule.groups());
  schedule.values_at(update, values);
  return values[0];
}

/// The message of the configuration error that `make` must raise.
template <class Make>
std::string refusal(Make make) {
  try {
    make();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

inline std::string refusal(const char* type, const Params& params, std::size_t groups = 1) {
  return refusal([&] { (void)make_schedule(type, params, adam_groups(groups)); });
}

}  // namespace lockstep::sched
