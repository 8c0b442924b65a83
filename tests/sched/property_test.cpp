// Laws that hold for schedules as such: what a resume may rely on, and where a curve has no steps.
#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "tests/sched/cases.hpp"

namespace lockstep::sched {
namespace {

constexpr std::int64_t updates = 60;

/// What the updates first .. last - 1 use, when the first thing that is asked of a new object is update `first`.
std::vector<std::vector<StepValues>> from_new(const Case& c, std::int64_t first) {
  const auto schedule = make_schedule(c.type, c.params, adam_groups(2));
  std::vector<std::vector<StepValues>> used;
  for (std::int64_t k = first; k < updates; ++k) schedule->values_at(k, used.emplace_back(2));
  return used;
}

class AnyType : public ::testing::TestWithParam<Case> {};

TEST_P(AnyType, GoesOnTheSameFromAnyUpdate) {
  const auto straight = from_new(GetParam(), 0);
  for (std::int64_t first = 1; first < updates; ++first) {
    const auto resumed = from_new(GetParam(), first);
    EXPECT_TRUE(std::equal(resumed.begin(), resumed.end(), straight.begin() + first)) << "from update " << first;
  }
}

TEST_P(AnyType, IsTheSameInAnyOrderOfQuestions) {
  const auto schedule = make_schedule(GetParam().type, GetParam().params, adam_groups(2));
  const auto straight = from_new(GetParam(), 0);
  std::mt19937 order(7);
  std::vector<StepValues> values(2);
  for (int i = 0; i < 500; ++i) {
    const auto k = static_cast<std::int64_t>(order() % static_cast<unsigned>(updates));
    schedule->values_at(k, values);
    ASSERT_EQ(values, straight[static_cast<std::size_t>(k)]) << "update " << k;
  }
}

INSTANTIATE_TEST_SUITE_P(All, AnyType, ::testing::ValuesIn(cases()),
                         [](const ::testing::TestParamInfo<Case>& tried) { return std::string(tried.param.type); });

/// A schedule over 10,000 updates that should have no steps, and how much it may move from one update to the next, as a
/// part of its largest rate: a few times 1 / 10,000, more where the formula itself is steep.
struct Smooth {
  const char* name;
  const char* type;
  Params params;
  double most = 1e-3;
};

std::vector<Smooth> smooth_ones() {
  const auto linear = [](Params params) {
    params.set("warmup_type", "linear");
    return params;
  };
  const Params ramp = {{"start_factor", 0.01}, {"total_iters", 2000}};
  return {
      {"range_test", "LRRangeTest", {{"lr_range_test_step_size", 3000}}},
      {"one_cycle",
       "OneCycle",
       {{"cycle_min_lr", 0.01},
        {"cycle_max_lr", 0.1},
        {"cycle_first_step_size", 2000},
        {"cycle_second_step_size", 3000},
        {"decay_step_size", 1000},
        {"decay_lr_rate", 0.5}}},
      {"warmup", "WarmupLR", linear({{"warmup_num_steps", 2000}})},
      {"warmup_decay", "WarmupDecayLR",
       linear({{"warmup_num_steps", 2000}, {"total_num_steps", 9000}, {"warmup_max_lr", 0.5}})},
      {"warmup_cosine", "WarmupCosineLR", linear({{"warmup_num_steps", 2000}, {"total_num_steps", 9000}})},
      {"linear_decay", "LinearDecay", {{"total_steps", 9000}, {"warmup_steps", 2000}, {"final_ratio", 0.1}}},
      {"cosine_decay", "CosineDecay", {{"total_steps", 9000}, {"warmup_steps", 2000}, {"final_ratio", 0.1}}},
      {"polynomial_decay", "PolynomialDecay", {{"total_steps", 9000}, {"warmup_steps", 2000}, {"power", 2.0}}},
      {"exponential_decay", "ExponentialDecay", {{"warmup_steps", 2000}, {"gamma", 0.9995}}},
      {"inverse_sqrt", "InverseSqrt", {{"warmup_steps", 2000}}},
      {"wsd_linear", "WSD", {{"warmup_steps", 2000}, {"stable_steps", 3000}, {"decay_steps", 4000}}},
      {"wsd_cosine",
       "WSD",
       {{"warmup_steps", 2000}, {"stable_steps", 3000}, {"decay_steps", 4000}, {"decay", "cosine"}}},
      // 1 - sqrt(p) has no finite slope where it begins.
      {"wsd_sqrt",
       "WSD",
       {{"warmup_steps", 2000}, {"stable_steps", 3000}, {"decay_steps", 4000}, {"decay", "sqrt"}},
       1.01 * std::sqrt(1.0 / 4000)},
      {"torch_linear", "LinearLR", ramp},
      {"torch_polynomial", "PolynomialLR", {{"total_iters", 9000}, {"power", 2.0}}},
      {"torch_cosine", "CosineAnnealingLR", {{"T_max", 3000}, {"eta_min", 0.01}}},
      {"torch_exponential", "ExponentialLR", {{"gamma", 0.9995}}},
      {"torch_one_cycle", "OneCycleLR", {{"max_lr", 0.1}, {"total_steps", 9000}}, 2e-3},
      {"torch_one_cycle_three",
       "OneCycleLR",
       {{"max_lr", 0.1}, {"total_steps", 9000}, {"three_phase", true}, {"anneal_strategy", "linear"}},
       2e-3},
      {"torch_cyclic",
       "CyclicLR",
       {{"base_lr", 0.01}, {"max_lr", 0.1}, {"step_size_up", 1500}, {"step_size_down", 2500}, {"mode", "triangular2"}}},
      // Stages that end where the next begins.
      {"sequence",
       "Sequence",
       {{"stages", ParamValue::List{stage(2000, "LinearLR", ramp), stage(3000, "Constant", {}),
                                    stage(4000, "CosineAnnealingLR", {{"T_max", 4000}}),
                                    stage(0, "Constant", {{"factor", 0.0}})}}}},
      {"sequential",
       "SequentialLR",
       {{"schedulers", ParamValue::List{stage(0, "LinearLR", ramp), stage(0, "CosineAnnealingLR", {{"T_max", 8000}})}},
        {"milestones", ParamValue::List{2000}}}}};
}

class SmoothSchedule : public ::testing::TestWithParam<Smooth> {};

TEST_P(SmoothSchedule, HasNoStepsAtTheBordersOfItsParts) {
  const Smooth& smooth = GetParam();
  const auto schedule = make_schedule(smooth.type, smooth.params, adam_groups());
  double top = 0;
  for (std::int64_t k = 0; k < 10'000; ++k) top = std::max(top, lr_at(*schedule, k));
  for (std::int64_t k = 1; k < 10'000; ++k)
    ASSERT_LE(std::abs(lr_at(*schedule, k) - lr_at(*schedule, k - 1)), smooth.most * top) << "at update " << k;
}

TEST_P(SmoothSchedule, MovesBeta1WithoutStepsToo) {
  const Smooth& smooth = GetParam();
  const auto schedule = make_schedule(smooth.type, smooth.params, adam_groups());
  // DeepSpeed's OneCycle begins with the smallest momentum, which its own next update does not have.
  const std::int64_t first = std::string(smooth.type) == "OneCycle" ? 2 : 1;
  for (std::int64_t k = first; k < 10'000; ++k)
    ASSERT_LE(std::abs(values_at(*schedule, k).beta1 - values_at(*schedule, k - 1).beta1), 2e-3) << "at update " << k;
}

INSTANTIATE_TEST_SUITE_P(All, SmoothSchedule, ::testing::ValuesIn(smooth_ones()),
                         [](const ::testing::TestParamInfo<Smooth>& tried) { return std::string(tried.param.name); });

/// The updates whose rate differs from the one before by more than `part` of the optimizer's, which is 0.5.
std::vector<std::int64_t> steps_of(const char* type, const Params& params, double part = 0.02) {
  const auto schedule = make_schedule(type, params, adam_groups());
  std::vector<std::int64_t> steps;
  for (std::int64_t k = 1; k < 1000; ++k)
    if (std::abs(lr_at(*schedule, k) - lr_at(*schedule, k - 1)) > part * 0.5) steps.push_back(k);
  return steps;
}

// The detector of the tests above sees the steps that belong there, at the very updates.
TEST(Steps, StandWhereTheTypeHasThem) {
  using ::testing::ElementsAre;
  EXPECT_THAT(steps_of("StepLR", {{"step_size", 300}, {"gamma", 0.5}}), ElementsAre(300, 600, 900));
  EXPECT_THAT(steps_of("StepDecay", {{"step_size", 300}, {"gamma", 0.5}}), ElementsAre(300, 600, 900));
  EXPECT_THAT(steps_of("MultiStepLR", {{"milestones", ParamValue::List{100, 700}}, {"gamma", 0.5}}),
              ElementsAre(100, 700));
  EXPECT_THAT(steps_of("ConstantLR", {{"total_iters", 400}}), ElementsAre(400));
  EXPECT_THAT(steps_of("CosineAnnealingWarmRestarts", {{"T_0", 200}, {"T_mult", 2}}), ElementsAre(200, 600));
  EXPECT_THAT(steps_of("CosineDecay", {{"total_steps", 1400}, {"first_cycle_steps", 200}, {"cycle_mult", 2}}),
              ElementsAre(200, 600));
  EXPECT_THAT(steps_of("Sequence", {{"stages", ParamValue::List{stage(300, "CosineAnnealingLR", {{"T_max", 300}}),
                                                                stage(0, "CosineAnnealingLR", {{"T_max", 700}})}}}),
              ElementsAre(300));
}

}  // namespace
}  // namespace lockstep::sched
