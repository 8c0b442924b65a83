#include "run/fault.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/support/error_text.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

TEST(Faults, AreNoneUnlessAskedFor) {
  EXPECT_TRUE(Faults().all().empty());
  EXPECT_TRUE(Faults("").all().empty());
}

TEST(Faults, AreReadWithKindRankStepAndPoint) {
  const Faults faults(
      "kill@rank1:step37,stop@rank0:step2:end,sleep=1.5@rank2:step3:save,kill@rank0:step4:commit,"
      "kill@rank1:step5:writing,enospc@rank1:step37,eio@rank0:step2:save,nan@rank1:step3,nan@rank0:step4:h.0.weight");

  const std::vector<Fault> expected = {{.kind = FaultKind::kill, .rank = 1, .step = 37},
                                       {.kind = FaultKind::stop, .rank = 0, .step = 2, .point = FaultPoint::end},
                                       {.kind = FaultKind::sleep,
                                        .rank = 2,
                                        .step = 3,
                                        .point = FaultPoint::save,
                                        .seconds = std::chrono::duration<double>(1.5)},
                                       {.kind = FaultKind::kill, .rank = 0, .step = 4, .point = FaultPoint::commit},
                                       {.kind = FaultKind::kill, .rank = 1, .step = 5, .point = FaultPoint::writing},
                                       {.kind = FaultKind::enospc, .rank = 1, .step = 37},
                                       {.kind = FaultKind::eio, .rank = 0, .step = 2, .point = FaultPoint::save},
                                       {.kind = FaultKind::nan, .rank = 1, .step = 3},
                                       {.kind = FaultKind::nan, .rank = 0, .step = 4, .parameter = "h.0.weight"}};
  EXPECT_EQ(faults.all(), expected);
}

TEST(Faults, ThatAreMalformedAreRefusedWithWhatIsUnderstood) {
  for (const char* text : {"kill",
                           "kill@rank1",
                           "kill@rank1:step0",
                           "kill@rank-1:step1",
                           "kill@rank1:step1:never",
                           "kill@rank:step",
                           "burn@rank1:step1",
                           "sleep@rank1:step1",
                           "kill=3@rank1:step1",
                           "sleep=x@rank1:step1",
                           "sleep=-1@rank1:step1",
                           "kill@rank1:step1:commit",
                           "flip@rank0:step1:save",
                           "flip@rank0:step1:writing",
                           "eio@rank0:step1:writing",
                           "kill@rank1:step1x",
                           "nan@step1",
                           "nan=1@rank1:step1",
                           "nan@rank1:step0:h.0.weight",
                           "kill@rank1:step1,,stop@rank0:step1"})
    EXPECT_NE(error_text(ErrorKind::config, [&] { (void)Faults(text); }).find("KIND@rankR:stepS[:POINT]"),
              std::string::npos)
        << text;
}

TEST(Faults, ThatNameAParameterNameOneOfTheModel) {
  const auto model = testing::mlp_task().model();
  Faults("nan@rank0:step1,nan@rank0:step1:layers.1.bias,kill@rank0:step1").require_known(model->parameters());
  const std::string text = error_text(
      ErrorKind::config, [&] { Faults("nan@rank0:step1:layers.9.bias").require_known(model->parameters()); });
  EXPECT_NE(text.find("no parameter 'layers.9.bias'; it has names such as layers.0.weight"), std::string::npos) << text;
}

/// The rule of docs/loss_scaling.md, written down from there: the scale of each step's backward pass.
std::vector<double> scales_by_the_rule(double scale, std::int64_t window, std::int64_t hysteresis,
                                       const std::vector<bool>& overflows) {
  std::vector<double> scales;
  std::int64_t h = hysteresis, last = -1;
  for (std::int64_t it = 0; it < static_cast<std::int64_t>(overflows.size()); ++it) {
    scales.push_back(scale);
    if (overflows[static_cast<std::size_t>(it)]) {
      if (hysteresis == 1 || h == 1)
        scale = std::max(scale / 2, 1.0);
      else
        --h;
      last = it;
    } else if (const std::int64_t k = it - last - 1; k > 0 && k % window == 0) {
      scale *= 2;
      h = hysteresis;
    }
  }
  return scales;
}

constexpr std::int64_t nan_steps = 14;

/// A NaN in the gradient of parameter `param` of rank `rank` in these steps, counted from 1.
testing::TrainingRun poisoned(Faults& faults, int ranks, int stage, DType compute) {
  testing::TrainingRun run{testing::mlp_task(), testing::engine_defaults(testing::mlp_task(), 4, 2, 1e-2), ranks,
                           nan_steps};
  run.options.compute = compute;
  run.options.zero_stage = stage;
  if (compute == DType::f16) {
    run.options.scaler = testing::dynamic_scaler(8, 3);
    run.options.scaler.hysteresis = 2;
  }
  if (compute == DType::bf16) run.options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  run.prepare = [&faults](engine::Engine& engine) { faults.strike(FaultPoint::begin, 1, engine); };
  run.after_step = [&faults](engine::Engine& engine, std::int64_t step) {
    faults.strike(FaultPoint::begin, step + 2, engine);
  };
  return run;
}

std::string nan_text(int rank, const std::set<std::int64_t>& steps, const std::string& parameter) {
  std::string text;
  for (const std::int64_t step : steps)
    text += fmt::format("{}nan@rank{}:step{}:{}", text.empty() ? "" : ",", rank, step, parameter);
  return text;
}

TEST(ANanOfOneRank, IsSkippedByAllRanksInTheSameStepAndTheScaleFollowsTheRule) {
  const auto parameters = testing::mlp_task().model()->parameters();
  int cases = 0;
  for (const int stage : {0, 1, 2, 3})
    for (const int ranks : {1, 2, 3}) {
      if (ranks == 1 && stage > 0) continue;  // nothing to divide
      for (int rank = 0; rank < ranks; ++rank)
        for (std::size_t p = 0; p < parameters.size(); ++p, ++cases) {
          // Another step for each case; the second in a row and a late one make hysteresis and growth move.
          const std::int64_t at = 1 + (cases * 5) % 9;
          const std::set<std::int64_t> steps = {at, at + 1, nan_steps - 1};
          Faults faults(nan_text(rank, steps, parameters[p].name));
          const testing::TrainingRun run = poisoned(faults, ranks, stage, DType::f16);
          std::int64_t begin = -1;
          const auto outcomes = [&] {
            testing::TrainingRun watched = run;
            watched.prepare = [&, strike = run.prepare](engine::Engine& engine) {
              if (engine.comm().rank() == 0) begin = engine.layout().of(static_cast<nn::ParamId>(p)).begin;
              strike(engine);
            };
            return testing::train_on_cpu(watched);
          }();

          std::vector<bool> overflows;
          for (std::int64_t step = 1; step <= nan_steps; ++step) overflows.push_back(steps.contains(step));
          const std::vector<double> scales = scales_by_the_rule(256, 3, 2, overflows);
          SCOPED_TRACE(fmt::format("stage {}, {} ranks, {}", stage, ranks, faults.text()));
          for (const testing::Outcome& outcome : outcomes) {
            ASSERT_EQ(outcome.results.size(), overflows.size());
            EXPECT_EQ(outcome.skips(), std::vector<int>(overflows.begin(), overflows.end()));
            EXPECT_EQ(outcome.scales(), scales);
            for (const std::int64_t step : steps)
              EXPECT_EQ(outcome.results[static_cast<std::size_t>(step - 1)].first_bad, begin);
            EXPECT_EQ(outcome.state.applied, nan_steps - 3);
            EXPECT_LT(outcome.losses().back(), 0.8 * outcome.losses().front()) << "it goes on learning";
            EXPECT_TRUE(std::ranges::all_of(outcome.master, [](float value) { return std::isfinite(value); }));
            EXPECT_EQ(outcome.master, outcomes[0].master);
          }
        }
    }
  EXPECT_EQ(cases, 6 + 4 * (2 + 3) * 6);
}

TEST(ANanOfOneRank, IsSkippedInBf16AndOnADeviceWhoseWorkIsPutOff) {
  for (const auto& place : {testing::cpu_place, testing::emulated_place}) {
    Faults faults("nan@rank1:step3:layers.1.weight");
    for (const testing::Outcome& outcome : testing::train_on(place, poisoned(faults, 2, 0, DType::bf16))) {
      std::vector<int> skips(nan_steps, 0);
      skips[2] = 1;
      EXPECT_EQ(outcome.skips(), skips) << place.name();
    }
  }
}

TEST(ANanOfOneRank, EndsFp32InThatStepAndIsNamed) {
  for (const int ranks : {1, 2, 3})
    for (const char* parameter : {"layers.0.bias", "layers.2.weight"}) {
      Faults faults(fmt::format("nan@rank{}:step5:{}", ranks - 1, parameter));
      const std::string text =
          error_text(ErrorKind::diverged, [&] { (void)testing::train_on_cpu(poisoned(faults, ranks, 0, DType::f32)); });
      EXPECT_NE(text.find("step 5: the gradient is not finite"), std::string::npos) << text;
      EXPECT_NE(text.find(fmt::format("first non-finite gradient: {}[0]", parameter)), std::string::npos) << text;
    }
}

TEST(ANanOfOneRank, IsRefusedWhereStepsAreCaptured) {
  Faults faults("nan@rank0:step1");
  testing::TrainingRun run = poisoned(faults, 1, 0, DType::f32);
  run.options.captured = true;
  const std::string text =
      error_text(ErrorKind::config, [&] { (void)testing::train_on(testing::emulated_place, run); });
  EXPECT_NE(text.find("run.cuda_graph: off"), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::run
