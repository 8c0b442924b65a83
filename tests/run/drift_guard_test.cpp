#include "run/drift_guard.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>

#include "tests/run/trainee.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;
using Ranks = std::vector<std::size_t>;

TEST(DriftGuard, TheMinorityIsWhatDiffersFromMoreThanHalf) {
  EXPECT_EQ(minority({5, 5, 7}), Ranks{2});
  EXPECT_EQ(minority({1, 5, 5, 7, 5}), (Ranks{0, 3}));
  EXPECT_EQ(minority({5, 5, 5}), Ranks{});
  EXPECT_EQ(minority({5, 7}), std::nullopt) << "one against one";
  EXPECT_EQ(minority({5, 5, 7, 7}), std::nullopt);
  EXPECT_EQ(minority({1, 2, 3}), std::nullopt);
}

/// One bit of an element that the rank holds, the lowest.
void flip(engine::Engine& engine, const std::string& buffer, std::int64_t at) {
  float value = 0;
  engine.read_range(buffer, at, 1, &value);
  value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1U);
  engine.write_range(buffer, at, 1, &value);
}

/// What `body` ends with on ranks of a stage, after two steps that were clean.
std::string said(int ranks, int stage, const std::function<void(engine::Engine&, DriftGuard&)>& body) {
  const testing::Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  return error_text(ErrorKind::desync, [&] {
    engines_on(
        task, ranks, 1,
        [&](engine::Engine& engine) {
          DriftGuard guard(engine, 1);
          for (std::int64_t step = 0; step < 2; ++step) {
            testing::train_step(engine, *dataset, step);
            engine.drain();
            guard.compare(step + 1);
            EXPECT_TRUE(guard.armed());
            guard.require_unchanged();
            EXPECT_FALSE(guard.armed());
          }
          body(engine, guard);
        },
        stage);
  });
}

TEST(DriftGuard, NamesTheTensorAndTheRankOfABitThatChanged) {
  for (const char* buffer : {"master", "exp_avg_sq"}) {
    const std::string text = said(3, 0, [&](engine::Engine& engine, DriftGuard& guard) {
      const std::int64_t at = engine.layout().of(2).begin + 1;
      if (engine.comm().rank() == 1) flip(engine, buffer, at);
      guard.compare(2);
    });
    EXPECT_NE(text.find("after step 2: rank 1 of 3 holds another value of " +
                        testing::mlp_task().model()->parameters()[2].name + " ("),
              std::string::npos)
        << text;
  }
}

TEST(DriftGuard, SaysThatTwoRanksCannotTell) {
  const std::string text = said(2, 0, [](engine::Engine& engine, DriftGuard& guard) {
    if (engine.comm().rank() == 1) flip(engine, "master", 0);
    guard.compare(2);
  });
  EXPECT_NE(text.find("the 2 ranks hold different values of"), std::string::npos) << text;
  EXPECT_NE(text.find("cannot be told"), std::string::npos) << text;
}

TEST(DriftGuard, ComparesTheCountersAndTheLossScale) {
  const std::string text = said(3, 0, [](engine::Engine& engine, DriftGuard& guard) {
    StepState state = engine.read_state();
    if (engine.comm().rank() == 0) state.scale *= 2;
    engine.write_state(state);
    guard.compare(2);
  });
  EXPECT_NE(text.find("rank 0 of 3 holds another value of the loss scale than"), std::string::npos) << text;
}

TEST(DriftGuard, WhatOneRankAloneHoldsMustNotChangeUntilTheUpdate) {
  for (const int stage : {1, 2, 3})
    for (const int ranks : {1, 2, 3}) {
      const std::string text = said(ranks, stage, [](engine::Engine& engine, DriftGuard& guard) {
        guard.compare(2);
        if (engine.comm().rank() == engine.comm().size() - 1)
          flip(engine, "exp_avg", engine.own_ranges("exp_avg").back().begin);
        guard.require_unchanged();
      });
      EXPECT_NE(
          text.find(fmt::format(" (exp_avg) of rank {} changed between step 2 and the update of step 3", ranks - 1)),
          std::string::npos)
          << "stage " << stage << ": " << text;
    }
}

TEST(DriftGuard, IsSilentOverCleanStepsInEveryStageAndTouchesNothing) {
  const testing::Task task = testing::mlp_task();
  const auto dataset = task.dataset();
  for (const int stage : {0, 1, 2, 3}) {
    std::vector<float> with, without;
    for (const bool guarded : {false, true})
      engines_on(
          task, 3, 1,
          [&](engine::Engine& engine) {
            DriftGuard guard(engine, 3);
            for (std::int64_t step = 0; step < 60; ++step) {
              guard.require_unchanged();
              testing::train_step(engine, *dataset, step);
              if (!guarded || !guard.due(step + 1)) continue;
              engine.drain();
              guard.compare(step + 1);
            }
            std::vector<float> all(static_cast<std::size_t>(engine.layout().size()));
            engine.gather_range("master", 0, engine.layout().size(), all.data(), 0);
            if (engine.comm().rank() == 0) (guarded ? with : without) = all;
          },
          stage);
    EXPECT_EQ(with, without) << "stage " << stage;
  }
}

TEST(DriftGuard, IsDueOnMultiplesAndNeverWhenOff) {
  Trainee trainee;
  EXPECT_TRUE(DriftGuard(*trainee.engine, 5).due(10));
  EXPECT_FALSE(DriftGuard(*trainee.engine, 5).due(11));
  DriftGuard off(*trainee.engine, 0);
  EXPECT_FALSE(off.due(10));
  off.compare(10);
  EXPECT_FALSE(off.armed());
}

}  // namespace
}  // namespace lockstep::run
