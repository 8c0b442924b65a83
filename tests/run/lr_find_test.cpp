#include "run/lr_find.hpp"

#include <cstring>
#include <map>

#include "tests/run/trainee.hpp"
#include "tests/support/numbers.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;
using testing::read_buffer;

/// Every number of an engine that training changes.
struct Everything {
  explicit Everything(engine::Engine& engine)
      : state(engine.read_state()), lr(engine.lr()), metric(engine.metric_state()) {
    for (const std::string& name : engine.buffer_names()) buffers[name] = read_buffer(engine, name);
  }
  std::map<std::string, std::vector<float>> buffers;
  StepState state;
  std::vector<double> lr;
  std::optional<sched::MetricState> metric;
};

void expect_equal(const Everything& a, const Everything& b) {
  EXPECT_EQ(a.lr, b.lr);
  EXPECT_EQ(a.metric, b.metric);
  EXPECT_EQ(std::memcmp(&a.state, &b.state, sizeof(StepState)), 0);
  ASSERT_EQ(a.buffers.size(), b.buffers.size());
  for (const auto& [name, values] : a.buffers) {
    ASSERT_EQ(values.size(), b.buffers.at(name).size());
    EXPECT_EQ(std::memcmp(values.data(), b.buffers.at(name).data(), values.size() * sizeof(float)), 0) << name;
  }
}

/// Trains, sweeps or not, and trains on: what comes out at the end.
void expect_nothing_is_left(const engine::EngineOptions& options, int ranks, const LrFindOptions& sweep) {
  const auto losses_of = [&](bool with_sweep) {
    testing::TrainingRun run{testing::mlp_task(), options, ranks, 12};
    const auto dataset = testing::mlp_task().dataset();
    run.after_step = [&, with_sweep](engine::Engine& engine, std::int64_t step) {
      if (engine.metric_state()) engine.observe(1.0);
      if (!with_sweep || (step != 0 && step != 5)) return;
      const Everything before(engine);
      const LrFound found = sweep_lr(
          engine, [&](std::int64_t i) { testing::train_step(engine, *dataset, 100 + i); }, sweep);
      EXPECT_GE(found.sweep.lr.size(), 10U);
      EXPECT_NEAR(found.sweep.lr.front(), sweep.from, 1e-9 * sweep.from);
      expect_equal(before, Everything(engine));
    };
    std::vector<double> losses = testing::train_on_cpu(run).front().losses();
    return losses;
  };
  EXPECT_EQ(testing::count_differing(losses_of(true), losses_of(false)), 0U);
}

TEST(SweepLr, LeavesTheEngineAsItWasToTheBit) {
  const Task task = testing::mlp_task();
  for (const int ranks : {1, 2}) {
    engine::EngineOptions options = testing::engine_defaults(task, 4);
    expect_nothing_is_left(options, ranks, {.steps = 20});
    // To the end of all numbers: the gradient is not finite, which ends a run in fp32.
    expect_nothing_is_left(options, ranks, {.from = 1e-3, .to = 1e25, .steps = 60, .divergence = 1e6});
    options.schedule = sched::make_schedule("ReduceLROnPlateau", {{"patience", 1}}, options.groups);
    expect_nothing_is_left(options, ranks, {.steps = 20});
  }
}

TEST(SweepLr, LeavesALossScalerAndSixteenBitParametersAsTheyWere) {
  engine::EngineOptions options = testing::engine_defaults(testing::mlp_task(), 4);
  options.compute = DType::f16;
  options.scaler = testing::dynamic_scaler(26, 3);
  expect_nothing_is_left(options, 2, {.steps = 30});
}

TEST(SweepLr, UsesTheRatesThatItReportsAndKeepsTheGroupsRatio) {
  Trainee trainee;
  std::vector<double> used;
  const auto step = [&](std::int64_t i) {
    used.push_back(trainee.engine->lr().at(0));
    testing::train_step(*trainee.engine, *trainee.dataset, i);
  };
  const LrFound found = sweep_lr(*trainee.engine, step, {.from = 1e-6, .to = 1e-2, .steps = 20});
  // The first steps are skipped: their loss scale is too high. The rate waits for the first update.
  ASSERT_EQ(found.sweep.lr.size(), 20U);
  EXPECT_GT(used.size(), 20U);
  EXPECT_EQ(found.sweep.lr.front(), 1e-6);
  EXPECT_NEAR(found.sweep.lr.back(), 1e-2, 1e-12);
  EXPECT_EQ(used.back(), found.sweep.lr.back());
}

TEST(SweepLr, EndsWhereTheLossRunsAway) {
  engine::EngineOptions options = testing::engine_defaults(testing::mlp_task(), 4);
  testing::TrainingRun run{testing::mlp_task(), options, 2, 1};
  const auto dataset = testing::mlp_task().dataset();
  run.after_step = [&](engine::Engine& engine, std::int64_t) {
    const LrFound found = sweep_lr(engine, [&](std::int64_t i) { testing::train_step(engine, *dataset, i); },
                                   {.from = 1e-3, .to = 1e4, .steps = 200});
    EXPECT_NE(found.ended.find("the loss ran away at lr "), std::string::npos) << found.ended;
    EXPECT_LT(found.sweep.lr.size(), 200U);
  };
  (void)testing::train_on_cpu(run);
}

TEST(SweepLr, RefusesWhatIsNoSweep) {
  Trainee trainee;
  for (const LrFindOptions& options :
       {LrFindOptions{.steps = 9}, LrFindOptions{.from = 0}, LrFindOptions{.from = 1, .to = 1}})
    error_text(ErrorKind::internal, [&] {
      (void)sweep_lr(
          *trainee.engine, [](std::int64_t) {}, options);
    });
}

}  // namespace
}  // namespace lockstep::run
