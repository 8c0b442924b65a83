// Activations that backward computes a second time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/gpt2.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using nn::Recompute;
using testing::engine_defaults;
using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::train_on;

class RecomputeTest : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Engines, RecomputeTest, testing::all_places(), testing::place_name);

Task gpt(const ScratchFolder& folder, Recompute recompute, double dropout = 0, int layers = 3) {
  Task task = testing::gpt_task(folder);
  const int symbols = task.dataset()->classes();
  task.model = [=] {
    return nn::make_gpt2({.n_layer = layers,
                          .n_head = 2,
                          .n_embd = 32,
                          .block_size = 16,
                          .vocab_size = symbols,
                          .embd_pdrop = dropout,
                          .resid_pdrop = dropout,
                          .recompute = recompute});
  };
  return task;
}

void expect_same(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.losses(), b.losses());
  EXPECT_EQ(a.column(&StepResult::grad_norm), b.column(&StepResult::grad_norm));
  EXPECT_EQ(a.master, b.master);
}

TEST_P(RecomputeTest, ChangesNoBit) {
  const ScratchFolder folder;
  for (const DType compute : {DType::f32, DType::bf16, DType::f16})
    for (const double dropout : {0.0, 0.3}) {
      if (place().emulated() && compute == DType::f16) continue;
      const auto train = [&](Recompute recompute) {
        const Task task = gpt(folder, recompute, dropout);
        EngineOptions options = engine_defaults(task, 2, 2);
        options.compute = compute;
        if (compute == DType::f16) options.scaler = testing::dynamic_scaler(10);
        return train_on(place(), {task, options, 2, place().steps(8, 2)});
      };
      const auto plain = train(Recompute::none);
      for (const Recompute recompute : {Recompute::block, Recompute::selective})
        expect_same(train(recompute)[1], plain[0]);
    }
}

TEST_P(RecomputeTest, GoesWithEveryZeroStage) {
  const ScratchFolder folder;
  const auto train = [&](Recompute recompute, int stage) {
    const Task task = gpt(folder, recompute, 0.1);
    EngineOptions options = engine_defaults(task, 2);
    options.zero_stage = stage;
    return train_on(place(), {task, options, 3, place().steps(6, 2)});
  };
  const auto plain = train(Recompute::none, 0);
  for (const int stage : {1, 2, 3}) {
    SCOPED_TRACE(stage);
    expect_same(train(Recompute::none, stage)[2], plain[0]);
    expect_same(train(Recompute::block, stage)[2], plain[0]);
  }
  expect_same(train(Recompute::selective, 3)[1], plain[0]);
}

TEST(Recompute, GoesWithCapturedSteps) {
  const ScratchFolder folder;
  const auto train = [&](Recompute recompute, bool captured) {
    const Task task = gpt(folder, recompute, 0.1, 2);
    EngineOptions options = engine_defaults(task, 2, 2);
    options.captured = captured;
    return testing::train_emulated({task, options, 1, 5}, 7);
  };
  expect_same(train(Recompute::block, true)[0], train(Recompute::none, false)[0]);
  expect_same(train(Recompute::selective, true)[0], train(Recompute::none, false)[0]);
}

TEST(Recompute, KeepsTheInputsOfBlocksAndTheMemoryOfOne) {
  const ScratchFolder folder;
  const auto plan_of = [&](Recompute recompute, int layers) {
    const auto model = gpt(folder, recompute, 0, layers).model();
    return nn::plan(*model, kernels::cpu_table(), {8, 16}, DType::f32);
  };
  const auto growth = [&](Recompute recompute) {
    return plan_of(recompute, 9).train_bytes - plan_of(recompute, 8).train_bytes;
  };
  const std::size_t activation = 8 * 16 * 32 * sizeof(float);
  EXPECT_EQ(growth(Recompute::block), 2 * activation) << "the residual stream and what is added to it";
  const std::size_t lse = 8 * 2 * 16 * sizeof(float);
  EXPECT_EQ(growth(Recompute::selective), 3 * activation + lse);
  EXPECT_GT(growth(Recompute::none), 15 * activation);

  const nn::Plan none = plan_of(Recompute::none, 8), block = plan_of(Recompute::block, 8),
                 selective = plan_of(Recompute::selective, 8);
  EXPECT_EQ(none.again.flops, 0);
  EXPECT_GT(block.again.flops, selective.again.flops);
  EXPECT_LT(block.again.flops, none.forward.flops) << "embedding and head are not computed again";
  EXPECT_EQ(block.forward.flops, none.forward.flops);
  EXPECT_EQ(block.backward.flops, none.backward.flops);
  EXPECT_EQ(block.grad_uses, none.grad_uses);
  EXPECT_EQ(block.completion_order, none.completion_order);
}

}  // namespace
}  // namespace lockstep::engine
