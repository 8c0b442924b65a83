#include "nn/plan.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "nn/gpt2.hpp"
#include "nn/mlp.hpp"
#include "nn/ops.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::MemoryStore;
using lockstep::testing::Rig;
using lockstep::testing::TestBatch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Gpt2Options tiny() { return {.n_layer = 2, .n_head = 2, .n_embd = 8, .block_size = 6, .vocab_size = 11}; }

TEST(Plan, ATiedParameterCompletesWithItsLastContribution) {
  const std::unique_ptr<Model> model = make_gpt2(tiny());
  const Plan p = plan(*model, kernels::reference_table(), {2, 5}, DType::f32);

  ASSERT_EQ(p.completion_order.size(), model->parameters().size());
  EXPECT_EQ(std::set<ParamId>(p.completion_order.begin(), p.completion_order.end()).size(), p.completion_order.size());
  EXPECT_EQ(p.grad_uses[0], 2) << "wte: embedding and head";
  for (std::size_t id = 1; id < p.grad_uses.size(); ++id) EXPECT_EQ(p.grad_uses[id], 1) << model->parameters()[id].name;
  const auto name = [&](std::size_t i) {
    return model->parameters()[static_cast<std::size_t>(p.completion_order[i])].name;
  };
  EXPECT_EQ(name(0), "transformer.ln_f.weight");
  EXPECT_EQ(name(p.completion_order.size() - 2), "transformer.wte.weight") << "not at the head, which comes first";
  EXPECT_EQ(name(p.completion_order.size() - 1), "transformer.wpe.weight");
}

TEST(Plan, UnitsComeForwardThenInReverseWithTheTiedOneTwice) {
  const std::unique_ptr<Model> model = make_gpt2(tiny());
  EXPECT_EQ(model->units(), 4);
  const Plan p = plan(*model, kernels::reference_table(), {2, 5}, DType::f32);
  std::vector<int> forward, backward;
  for (std::size_t i = 0; i < p.unit_events.size(); ++i) {
    const UnitEvent& event = p.unit_events[i];
    EXPECT_EQ(event.acquire, i % 2 == 0) << "no two scopes of this model overlap";
    if (event.acquire) (event.phase == Phase::forward ? forward : backward).push_back(event.unit);
  }
  EXPECT_THAT(forward, ElementsAre(0, 1, 2, 3, 0));
  EXPECT_THAT(backward, ElementsAre(0, 3, 2, 1, 0));
}

TEST(Plan, NamesTheOperationsAndTheirShapes) {
  const std::unique_ptr<Model> model = make_mlp({.features = 3, .hidden = {5}, .classes = 2});
  const Plan p = plan(*model, kernels::reference_table(), {.batch = 7}, DType::f32);

  ASSERT_EQ(p.ops.size(), 4U);
  EXPECT_EQ(p.ops[0].name + p.ops[0].out.text(), "input[7, 3]");
  EXPECT_EQ(p.ops[1].name + p.ops[1].out.text(), "linear_gelu[7, 5]");
  EXPECT_EQ(p.ops[2].name + p.ops[2].out.text(), "linear[7, 2]");
  EXPECT_EQ(p.ops[3].name + p.ops[3].out.text(), "cross_entropy[7, 2]");
  EXPECT_DOUBLE_EQ(p.ops[2].forward.flops, 2.0 * 7 * 5 * 2);
  EXPECT_DOUBLE_EQ(p.ops[2].backward.flops, 4.0 * 7 * 5 * 2);
  EXPECT_DOUBLE_EQ(p.ops[2].forward.bytes, 4.0 * (7 * 5 + 5 * 2 + 7 * 2));
}

TEST(Plan, FlopsOfGpt2AreThoseOfItsMatrices) {
  const std::unique_ptr<Model> model = make_gpt2({});
  const Plan p = plan(*model, kernels::reference_table(), {1, 1024}, DType::bf16);
  // 2 FLOPs a token and weight of the matrices (12 blocks of 12 width^2, and the padded head), as usually counted.
  const double matrices = 12.0 * 12 * 768 * 768 + 50304.0 * 768;
  EXPECT_NEAR(p.forward.flops / (2 * matrices * 1024), 1.08, 0.03) << "the rest is attention and element-wise work";
  EXPECT_NEAR(p.backward.flops / p.forward.flops, 2.0, 0.1);
}

TEST(Plan, SixteenBitActivationsTakeLessAndEvaluationLeast) {
  const std::unique_ptr<Model> model =
      make_gpt2({.n_layer = 6, .n_head = 6, .n_embd = 384, .block_size = 256, .vocab_size = 63});
  const std::size_t wide = plan(*model, kernels::reference_table(), {8, 256}, DType::f32).train_bytes;
  const std::size_t narrow = plan(*model, kernels::reference_table(), {8, 256}, DType::bf16).train_bytes;
  const std::size_t evaluation = plan(*model, kernels::reference_table(), {8, 256}, DType::f32, false).train_bytes;
  EXPECT_LT(static_cast<double>(narrow), 0.6 * static_cast<double>(wide));
  EXPECT_LT(evaluation, wide / 6);
  // What backward needs of a block: 3 width-wide inputs of linear layers, qkv, two times 4 x width of the MLP, and two
  // sums of the residual stream.
  const double kept = 6.0 * (3 + 3 + 8 + 2) * 384 * 8 * 256 * 4;
  EXPECT_NEAR(static_cast<double>(wide) / kept, 1.05, 0.05);
}

/// A vocabulary far larger than the model is wide: logits of all positions would take 206 MB, 412 MB in training.
TEST(Plan, NoPassHoldsTheLogitsOfAllPositions) {
  const std::unique_ptr<Model> model =
      make_gpt2({.n_layer = 1, .n_head = 1, .n_embd = 16, .block_size = 1024, .vocab_size = 50257});
  const std::size_t logits = std::size_t{1024} * 50304 * 4;
  for (const bool train : {true, false}) {
    const std::size_t one = plan(*model, kernels::cpu_table(), {1, 1024}, DType::f32, train).train_bytes;
    const std::size_t four = plan(*model, kernels::cpu_table(), {4, 1024}, DType::f32, train).train_bytes;
    EXPECT_LT(one, logits / 2);
    EXPECT_LT(four, logits / 2) << "more rows are more chunks";
  }
}

TEST(Plan, ListsEveryProductWithAWeight) {
  const std::unique_ptr<Model> mlp = make_mlp({.features = 3, .hidden = {5}, .classes = 2});
  std::vector<int> weights;
  for (const MatmulArgs& args : plan(*mlp, kernels::reference_table(), {.batch = 7}, DType::f32).weight_products)
    weights.push_back(args.b_param);
  EXPECT_THAT(weights, ElementsAre(0, 2, 2)) << "two forward; back only through the second: features are constant";

  // 1024 rows of 50304 logits are 4 chunks, each with its logits and its way back.
  const std::unique_ptr<Model> gpt =
      make_gpt2({.n_layer = 1, .n_head = 1, .n_embd = 16, .block_size = 1024, .vocab_size = 50257});
  for (const bool train : {true, false}) {
    const Plan p = plan(*gpt, kernels::reference_table(), {1, 1024}, DType::f32, train);
    EXPECT_EQ(std::count_if(p.weight_products.begin(), p.weight_products.end(),
                            [](const MatmulArgs& args) { return args.b_param == 0; }),
              train ? 8 : 4);
  }
}

TEST(Plan, PeakIsTheRealPeak) {
  for (const KernelTable* table : {&kernels::reference_table(), &kernels::cpu_table(), &kernels::emulated_table()}) {
    const Rig rig(*table);
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const Mode mode : {Mode::train, Mode::evaluate}) {
        SCOPED_TRACE(table->name);
        const std::unique_ptr<Model> model = make_gpt2(tiny());
        const Plan p = plan(*model, *table, {2, 5}, compute, mode == Mode::train);
        MemoryStore store(rig.device(), model->parameters(), compute, testing::sine_values(model->parameters()));
        const TestBatch batch(rig.device(), {2, 5});
        testing::fill_tokens(batch, 11);
        // run_pass gives the workspace exactly the planned bytes and compares the peaks.
        (void)testing::run_pass(rig, *model, p, store, batch.get(), {.compute = compute, .mode = mode});
      }
    }
  }
}

TEST(Plan, ScratchIsWhatTheKernelsOfTheRunAskFor) {
  // Kernels whose bias_grad wants a megabyte, and does not use it.
  KernelTable hungry = kernels::reference_table();
  hungry.bias_grad_scratch = [](const BiasGradArgs& /*args*/) noexcept { return std::size_t{1} << 20; };
  const Rig rig(hungry);
  const std::unique_ptr<Model> model = make_mlp({.features = 3, .hidden = {5}, .classes = 2});
  MemoryStore store(rig.device(), model->parameters(), DType::f32, testing::sine_values(model->parameters()));
  const TestBatch batch(rig.device(), {.batch = 7}, 3);

  const Plan p = plan(*model, hungry, {.batch = 7}, DType::f32);
  const Plan modest = plan(*model, kernels::reference_table(), {.batch = 7}, DType::f32);

  EXPECT_GE(p.train_bytes, std::size_t{1} << 20);
  EXPECT_LT(modest.train_bytes, std::size_t{1} << 14);
  (void)testing::run_pass(rig, *model, p, store, batch.get());
  EXPECT_THROW((void)testing::run_pass(rig, *model, modest, store, batch.get()), Error);
}

TEST(Plan, AnotherBatchShapeIsAnErrorNamingTheOperation) {
  const Rig rig(kernels::reference_table());
  const std::unique_ptr<Model> model = make_gpt2(tiny());
  const Plan p = plan(*model, kernels::reference_table(), {2, 5}, DType::f32);
  MemoryStore store(rig.device(), model->parameters(), DType::f32, testing::sine_values(model->parameters()));
  const TestBatch batch(rig.device(), {2, 4});
  testing::fill_tokens(batch, 11);
  try {
    (void)testing::run_pass(rig, *model, p, store, batch.get());
    FAIL() << "ran";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("operation 0 is embedding -> [2, 4, 8], but the plan has embedding -> [2, 5, 8] there"));
  }
}

/// Declares a parameter that no operation uses.
class Forgetful final : public Model {
 public:
  Forgetful() {
    const int unit = add_unit();
    weight_ = add({.name = "used", .shape = {3, 2}, .unit = unit});
    (void)add({.name = "forgotten", .shape = {2}, .unit = unit});
  }
  [[nodiscard]] std::string describe() const override { return "forgetful"; }
  [[nodiscard]] int classes() const override { return 2; }
  [[nodiscard]] Tensor logits(Context& context, const Batch& batch) override {
    const Context::UnitScope scope(context, 0);
    return linear(context, input(context, batch.features, {batch.shape.batch, 3}), 2, weight_, no_parameter);
  }

 private:
  ParamId weight_ = 0;
};

TEST(Plan, AParameterThatNothingUsesIsAnErrorNamingIt) {
  Forgetful model;
  try {
    (void)plan(model, kernels::reference_table(), {.batch = 4}, DType::f32);
    FAIL() << "planned";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("parameter forgotten of forgetful gets no gradient"));
  }
}

TEST(Model, RefusesAParameterNameTwiceAndAnUnknownUnit) {
  class Twice final : public Model {
   public:
    explicit Twice(int unit) {
      (void)add_unit();
      (void)add({.name = "w", .shape = {1}, .unit = 0});
      (void)add({.name = unit == 0 ? "w" : "v", .shape = {1}, .unit = unit});
    }
    [[nodiscard]] std::string describe() const override { return "twice"; }
    [[nodiscard]] int classes() const override { return 1; }
    [[nodiscard]] Tensor logits(Context&, const Batch&) override { return {}; }
  };
  EXPECT_THROW(Twice(0), Error);
  EXPECT_THROW(Twice(1), Error);
}

}  // namespace
}  // namespace lockstep::nn
