#include "nn/context.hpp"

#include <gmock/gmock.h>

#include "core/error.hpp"
#include "nn/mlp.hpp"
#include "nn/ops.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::Rig;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Writes down what it is asked for.
class LoggingStore final : public ParameterStore {
 public:
  std::vector<std::string> log;
  void acquire(int unit, Phase phase) override { note("acquire", unit, phase); }
  void release(int unit, Phase phase) override { note("release", unit, phase); }
  const void* value(ParamId) override { return nullptr; }
  std::uint64_t version(ParamId) override { return 1; }
  GradView grad(ParamId) override { return {}; }
  void grad_contributed(ParamId id) override { log.push_back(fmt::format("grad {}", id)); }

 private:
  void note(const char* what, int unit, Phase phase) {
    log.push_back(fmt::format("{} {} {}", what, unit, phase == Phase::forward ? "forward" : "backward"));
  }
};

class ContextTest : public ::testing::Test {
 protected:
  Rig rig_{kernels::reference_table()};
  Arena memory_{rig_.device(), 1 << 16};
  Workspace workspace_{memory_.data(), memory_.bytes()};
  LoggingStore store_;

  ContextOptions options(Mode mode = Mode::train) {
    return {.exec = rig_.exec(), .store = &store_, .workspace = &workspace_, .mode = mode};
  }
  static void fill(const Tensor& tensor, float value) {
    for (std::int64_t i = 0; i < tensor.shape().elements(); ++i) tensor.as<float>()[i] = value;
  }
};

TEST_F(ContextTest, UnitsAreBracketedForwardAndMirroredBackward) {
  Context context(options());
  for (const int unit : {0, 1}) {
    const Context::UnitScope scope(context, unit);
    context.begin("op", {1}, {}, {});
    context.end([unit](Context& c) { c.contributed(10 + unit); });
  }

  context.backward();

  EXPECT_THAT(store_.log, ElementsAre("acquire 0 forward", "release 0 forward", "acquire 1 forward",
                                      "release 1 forward", "acquire 1 backward", "grad 11", "release 1 backward",
                                      "acquire 0 backward", "grad 10", "release 0 backward"));
}

TEST_F(ContextTest, EvaluationBracketsUnitsAndKeepsNoTape) {
  Context context(options(Mode::evaluate));
  {
    const Context::UnitScope scope(context, 3);
    const Tensor x = context.make({4});
    context.begin("op", {4}, {}, {});
    context.end([x](Context&) {});
  }
  EXPECT_THAT(store_.log, ElementsAre("acquire 3 forward", "release 3 forward"));
  EXPECT_EQ(workspace_.in_use(), 0U);
  EXPECT_THROW(context.backward(), Error);
}

TEST_F(ContextTest, AfterOpIsCalledAfterEachOperationBothWays) {
  int calls = 0;
  ContextOptions with_hook = options();
  with_hook.after_op = [&] { ++calls; };
  Context context(with_hook);
  {
    const Context::UnitScope scope(context, 0);
    for (int i = 0; i < 3; ++i) {
      context.begin("op", {1}, {}, {});
      context.end([](Context&) {});
      EXPECT_EQ(calls, i + 1);
    }
  }
  context.backward();
  EXPECT_EQ(calls, 6) << "units are not operations";
}

TEST_F(ContextTest, AGradientIsAdoptedWithoutACopyAndAddedToInPlace) {
  Context context(options());
  const Tensor x = context.make({3});
  Tensor first = context.make({3});
  Tensor second = context.make({3});
  fill(first, 1);
  fill(second, 2);
  void* const adopted = first.data();

  context.give_grad(x, first, true);
  first = {};
  context.give_grad(x, second, true);
  const Context::Grad grad = context.take_grad(x);

  EXPECT_EQ(grad.tensor.data(), adopted);
  EXPECT_TRUE(grad.writable);
  EXPECT_EQ(grad.tensor.as<float>()[2], 3.0F);
  EXPECT_FALSE(context.take_grad(x).tensor.defined()) << "taken";
}

TEST_F(ContextTest, ASharedGradientIsNotWrittenWhileItsOtherReaderWaits) {
  Context context(options());
  const Tensor x = context.make({3}), branch = context.make({3});
  Tensor shared = context.make({3});
  Tensor more = context.make({3});
  fill(shared, 1);
  fill(more, 2);
  context.give_grad(x, shared, true);
  context.give_grad(branch, shared, false);
  shared = {};

  // A contribution to x before branch's producer was visited.
  context.give_grad(x, more, true);

  const Context::Grad of_x = context.take_grad(x), of_branch = context.take_grad(branch);
  EXPECT_EQ(of_x.tensor.as<float>()[0], 3.0F);
  EXPECT_EQ(of_branch.tensor.as<float>()[0], 1.0F);
  EXPECT_TRUE(of_x.writable);
  EXPECT_FALSE(of_branch.writable);
}

TEST_F(ContextTest, OnlyTheLastReaderOfASharedGradientMayWrite) {
  Context context(options());
  const Tensor x = context.make({3}), branch = context.make({3});
  Tensor shared = context.make({3});
  context.give_grad(x, shared, true);
  context.give_grad(branch, shared, false);
  shared = {};

  EXPECT_FALSE(context.take_grad(branch).writable);
  EXPECT_TRUE(context.take_grad(x).writable);
}

TEST_F(ContextTest, WhoTakesASharedGradientEarlyMayNotWrite) {
  Context context(options());
  const Tensor x = context.make({3}), branch = context.make({3});
  Tensor shared = context.make({3});
  context.give_grad(x, shared, true);
  context.give_grad(branch, shared, false);
  shared = {};

  EXPECT_FALSE(context.take_grad(x).writable) << "branch's producer still has to read it";
}

TEST_F(ContextTest, ConstantsGetNoGradient) {
  Context context(options());
  const Tensor x = context.make({3});
  context.set_constant(x);
  context.give_grad(x, context.make({3}), true);
  EXPECT_FALSE(context.take_grad(x).tensor.defined());
}

TEST_F(ContextTest, AnExceptionInsideAUnitLeavesTheContextDestructible) {
  EXPECT_THROW(
      {
        Context context(options());
        const Context::UnitScope scope(context, 0);
        const Tensor x = context.make({8});
        context.begin("op", {8}, {}, {});
        context.end([x](Context&) {});
        fail(ErrorKind::data, "in the middle");
      },
      Error);
  EXPECT_EQ(workspace_.in_use(), 0U);
  EXPECT_THAT(store_.log, ElementsAre("acquire 0 forward"));
}

TEST_F(ContextTest, AnExceptionInBackwardLeavesTheContextDestructible) {
  {
    Context context(options());
    const Tensor x = context.make({8});
    context.begin("first", {8}, {}, {});
    context.end([x](Context& c) { c.give_grad(x, x, true); });
    context.begin("second", {8}, {}, {});
    context.end([x](Context& c) {
      c.give_grad(x, c.make({8}), true);
      fail(ErrorKind::environment, "device lost");
    });
    EXPECT_THROW(context.backward(), Error);
  }
  EXPECT_EQ(workspace_.in_use(), 0U);
}

class Mismatch : public ContextTest {
 protected:
  std::vector<OpPlan> plan_{{"input", {4, 2}, {}, {}}, {"linear", {4, 3}, {}, {}}};

  /// What the error says when the operations of `names` run with outputs [4, last].
  std::string error_of(const std::vector<std::pair<std::string, std::int64_t>>& operations) {
    ContextOptions with_plan = options();
    with_plan.expected = &plan_;
    Context context(with_plan);
    try {
      for (const auto& [name, last] : operations) {
        context.begin(name, {4, last}, {}, {});
        context.end([](Context&) {});
      }
      context.finish_forward();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(Mismatch, ThePlannedSequencePasses) { EXPECT_EQ(error_of({{"input", 2}, {"linear", 3}}), ""); }

TEST_F(Mismatch, AnotherOperationIsNamedWithItsPositionAndBothShapes) {
  EXPECT_THAT(error_of({{"input", 2}, {"linear_gelu", 5}}),
              HasSubstr("operation 1 is linear_gelu -> [4, 5], but the plan has linear -> [4, 3] there"));
}

TEST_F(Mismatch, AnotherShapeIsAnError) {
  EXPECT_THAT(error_of({{"input", 9}}), HasSubstr("operation 0 is input -> [4, 9], but the plan has input -> [4, 2]"));
}

TEST_F(Mismatch, OneOperationTooManyIsAnError) {
  EXPECT_THAT(error_of({{"input", 2}, {"linear", 3}, {"attention", 3}}),
              HasSubstr("operation 2 is attention -> [4, 3], but the plan ends after 2 operations"));
}

TEST_F(Mismatch, OneOperationTooFewIsAnError) {
  EXPECT_THAT(error_of({{"input", 2}}), HasSubstr("the plan goes on with operation 1, linear -> [4, 3]"));
}

}  // namespace
}  // namespace lockstep::nn
