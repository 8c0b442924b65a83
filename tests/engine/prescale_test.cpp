// prescale_gradients and gradient_predivide_factor: where gradients are divided, before or after their sum over ranks.
#include "engine/engine.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::engine_defaults;
using testing::mlp_task;
using testing::Outcome;
using testing::train_on_cpu;
using testing::TrainingRun;

TrainingRun run_of(int ranks, bool prescale, double factor) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), ranks, 20};
  run.options.prescale_gradients = prescale;
  run.options.gradient_predivide_factor = factor;
  return run;
}

TEST(Prescale, PowersOfTwoChangeNoBit) {
  for (const int ranks : {2, 4}) {
    const Outcome after = train_on_cpu(run_of(ranks, false, 1)).front();
    for (const auto& [prescale, factor] :
         {std::pair(true, 1.0), std::pair(true, 3.0), std::pair(false, 4.0), std::pair(false, 0.5)}) {
      const Outcome other = train_on_cpu(run_of(ranks, prescale, factor)).front();
      EXPECT_EQ(testing::count_differing(other.master, after.master), 0U) << ranks << " ranks, factor " << factor;
      EXPECT_EQ(testing::count_differing(other.losses(), after.losses()), 0U);
      EXPECT_EQ(testing::count_differing(other.column(&StepResult::grad_norm), after.column(&StepResult::grad_norm)),
                0U);
    }
  }
}

TEST(Prescale, OtherFactorsChangeRoundingAlone) {
  const std::vector<double> after = train_on_cpu(run_of(3, false, 1)).front().losses();
  for (const auto& [prescale, factor] : {std::pair(true, 1.0), std::pair(false, 3.0), std::pair(false, 7.0)}) {
    const Outcome other = train_on_cpu(run_of(3, prescale, factor)).front();
    ASSERT_EQ(other.losses().size(), after.size());
    bool rounded = false;
    for (std::size_t i = 0; i < after.size(); ++i) {
      // One more rounding of each gradient, 2^-24 of it, over 20 steps.
      EXPECT_NEAR(other.losses()[i], after[i], 1e-5 * after[i]) << "step " << i;
      rounded = rounded || other.losses()[i] != after[i];
    }
    EXPECT_TRUE(rounded) << "nothing was divided before the sum: factor " << factor;
  }
}

TEST(Prescale, EmulatedDevicesDivideToo) {
  const std::vector<double> after = testing::train_emulated(run_of(3, false, 1), 1).front().losses();
  const std::vector<double> before = testing::train_emulated(run_of(3, true, 1), 2).front().losses();
  ASSERT_EQ(before.size(), after.size());
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_NEAR(before[i], after[i], 1e-5 * after[i]) << "step " << i;
  EXPECT_NE(before, after);
}

TEST(Prescale, OneRankHasNothingToDivide) {
  const Outcome plain = train_on_cpu(run_of(1, false, 1)).front();
  EXPECT_EQ(testing::count_differing(train_on_cpu(run_of(1, true, 1)).front().master, plain.master), 0U);
  EXPECT_EQ(testing::count_differing(train_on_cpu(run_of(1, false, 3)).front().master, plain.master), 0U);
}

/// Whether the first step of four ranks overflows at a loss scale of 2^power.
bool overflows(bool prescale, double factor, double power) {
  TrainingRun run = run_of(4, prescale, factor);
  run.steps = 1;
  run.options.scaler = testing::dynamic_scaler(power);
  run.options.scaler.dynamic = 0;
  run.prepare =
      [](Engine& engine) {  // larger weights, so that gradients come near the end of fp32 at a scale that it has
        std::vector<float> master = testing::read_buffer(engine, "master");
        for (float& value : master) value *= 8;
        testing::write_buffer(engine, "master", master);
      };
  return train_on_cpu(run).front().skips().front() != 0;
}

TEST(Prescale, DividingFirstKeepsSumsFiniteThatWouldOverflow) {
  int saved = 0;
  for (double power = 110; power <= 127; ++power) {
    const bool after = overflows(false, 1, power), before = overflows(true, 1, power);
    EXPECT_FALSE(before && !after) << "2^" << power;
    EXPECT_EQ(overflows(false, 4, power), before) << "the factor 4 divides by as much before the sum: 2^" << power;
    saved += after && !before ? 1 : 0;
  }
  EXPECT_GE(saved, 1) << "no scale at which the order mattered";
}

}  // namespace
}  // namespace lockstep::engine
