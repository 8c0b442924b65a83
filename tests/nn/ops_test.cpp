// Every operation's backward half against central differences of its forward half, on the reference and the CPU table.
#include "nn/ops.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/error.hpp"
#include "tests/nn/rig.hpp"

namespace lockstep::nn {
namespace {

using lockstep::testing::MemoryStore;
using lockstep::testing::Rig;

/// An operation on `inputs` with `parameters`, all of unit 0.
struct OpCase {
  std::string name;
  std::vector<ParameterSpec> parameters;
  std::vector<Shape> inputs;
  std::function<std::vector<Tensor>(Context&, const std::vector<Tensor>&)> op;
};

ParameterSpec parameter(const std::string& name, std::vector<std::int64_t> shape, Init init = Init::normal) {
  const std::int64_t rows = shape.front();
  return {.name = name, .shape = std::move(shape), .stored_rows = rows, .init = init};
}

/// Of the case under way.
const Rig* running = nullptr;

std::vector<OpCase> cases() {
  const ParameterSpec gamma = parameter("gamma", {7}, Init::ones), beta = parameter("beta", {7});
  return {
      {"linear",
       {parameter("w", {7, 5}), parameter("b", {5})},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {linear(c, in[0], 5, 0, 1)}; }},
      {"linear_without_bias",
       {parameter("w", {1, 3})},
       {{2, 1}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {linear(c, in[0], 3, 0, no_parameter)}; }},
      {"linear_gelu",
       {parameter("w", {7, 9}), parameter("b", {9})},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {linear_gelu(c, in[0], 9, 0, 1)}; }},
      {"layernorm",
       {gamma, beta},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {layernorm(c, in[0], 0, 1)}; }},
      {"residual_layernorm",
       {gamma, beta},
       {{3, 4, 7}, {3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> {
         const Normed n = residual_layernorm(c, in[0], in[1], 0, 1);
         return {n.sum, n.y};
       }},
      {"residual_layernorm_with_an_unused_norm",
       {gamma, beta},
       {{3, 4, 7}, {3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> {
         return {residual_layernorm(c, in[0], in[1], 0, 1).sum};
       }},
      {"residual_of_a_tensor_with_itself",
       {gamma, beta},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> {
         const Normed n = residual_layernorm(c, in[0], in[0], 0, 1);
         return {n.sum, n.y};
       }},
      {"residual_block",  // x reaches the sum twice: directly and through its own norm
       {gamma, beta, parameter("w", {7, 7}), parameter("b", {7})},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> {
         Tensor branch = linear(c, layernorm(c, in[0], 0, 1), 7, 2, 3);
         const Normed n = residual_layernorm(c, in[0], branch, 0, 1);
         return {n.y, linear(c, n.sum, 7, 2, 3)};
       }},
      {"attention",
       {},
       {{2, 5, 3 * 6}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {attention(c, in[0], 2)}; }},
      {"attention_of_one_position",
       {},
       {{1, 1, 3 * 3}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {attention(c, in[0], 1)}; }},
      {"convolution",
       {parameter("w", {3, 3, 2, 4}), parameter("b", {4})},
       {{2, 3, 4, 2}},
       [](Context& c, const auto& in) -> std::vector<Tensor> {
         // Without pooling, lifted off the rectifier's kink: there the gradient is the product's alone.
         return {convolution(c, in[0], {.out = 4, .kernel = 3, .pool = 1, .weight = 0, .bias = 1}, false)};
       }},
      {"dropout",
       {},
       {{3, 4, 7}},
       [](Context& c, const auto& in) -> std::vector<Tensor> { return {dropout(c, in[0], 0.5, 3, nullptr)}; }},
      {"embedding",
       {parameter("wte", {11, 7}), parameter("wpe", {6, 7})},
       {},
       [](Context& c, const auto&) -> std::vector<Tensor> {
         // One padded row of wte and two positions that are not used.
         const std::int32_t* const tokens =
             running->keep(std::vector<std::int32_t>{3, 0, 3, 9, 1, 0, 3, 4, 9, 9, 2, 3});
         return {embedding(c, tokens, 3, 4, 7, {.wte = 0, .wpe = 1, .vocabulary = 10, .wte_rows = 11, .wpe_rows = 6})};
       }},
      {"input_needs_no_gradient",
       {parameter("w", {7, 5}), parameter("b", {5})},
       {},
       [](Context& c, const auto&) -> std::vector<Tensor> {
         const float* const features =
             running->keep(std::vector<float>{0.5F, -1, 2, 0.25F, 1, -0.5F, 3, 0, 1, 1, -2, 0.125F, 0.75F, -1});
         return {linear(c, input(c, features, {2, 7}), 5, 0, 1)};
       }},
  };
}

/// The sine values; a convolution's bias is so large that no rectifier changes its mind within a difference.
lockstep::testing::InitialValue initial_values(const OpCase& op_case) {
  const auto sine = lockstep::testing::sine_values(op_case.parameters);
  if (op_case.name != "convolution") return sine;
  return [sine](ParamId id, std::int64_t i) { return sine(id, i) + (id == 1 ? (i % 2 == 0 ? 9.0 : -9.0) : 0.0); };
}

/// Weights of the linear functional whose gradient is checked: L = sum over outputs of w_j y_j, in double.
float functional(std::int64_t output, std::int64_t j) {
  return static_cast<float>(std::cos(0.7 * static_cast<double>(j) + 2.0 * static_cast<double>(output)));
}

using Inputs = std::vector<std::vector<float>>;

struct Result {
  double value = 0;
  Inputs grads;  ///< of the inputs
};

/// The host reads and writes tensors in between, so it waits for the device each time.
Result run_case(const Rig& rig, const OpCase& op_case, MemoryStore& store, const Inputs& inputs) {
  running = &rig;
  const testing::SharedMemory memory(rig.device(), 1 << 20);
  Workspace workspace(memory.data(), memory.bytes());
  Context context({.exec = rig.exec(), .store = &store, .workspace = &workspace});
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(context.make(op_case.inputs[i]));
    std::copy(inputs[i].begin(), inputs[i].end(), in.back().as<float>());
  }
  Result result;
  {
    const Context::UnitScope scope(context, 0);
    const std::vector<Tensor> outputs = op_case.op(context, in);
    rig.synchronize();
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const Tensor& y = outputs[o];
      const auto output = static_cast<std::int64_t>(o);
      for (std::int64_t j = 0; j < y.shape().elements(); ++j)
        result.value += static_cast<double>(functional(output, j)) * static_cast<double>(y.as<float>()[j]);
      context.begin("seed", y.shape(), {}, {});
      context.end([&rig, to = TensorRef(y), output](Context& c) {
        const Tensor seed = c.make(to.shape);
        rig.synchronize();
        for (std::int64_t j = 0; j < to.shape.elements(); ++j) seed.as<float>()[j] = functional(output, j);
        c.give_grad(to, seed, true);
      });
    }
  }
  context.backward();
  rig.synchronize();
  for (std::size_t i = 0; i < in.size(); ++i) {
    const Tensor grad = context.take_grad(in[i]).tensor;
    const float* data = grad.as<float>();
    result.grads.emplace_back(data, data + grad.shape().elements());
  }
  return result;
}

/// The flat gradients, with zeros for parameters that no output depends on: nothing writes those.
std::vector<float> contributed_grads(const MemoryStore& store) {
  std::vector<float> grads(store.flat_grads(), store.flat_grads() + store.flat_elements());
  for (std::size_t p = 0; p < store.specs().size(); ++p)
    if (store.contributions()[p] == 0)
      std::fill_n(grads.begin() + static_cast<std::ptrdiff_t>(store.offset(static_cast<ParamId>(p))),
                  store.specs()[p].stored_elements(), 0.0F);
  return grads;
}

Inputs sine_inputs(const OpCase& op_case) {
  Inputs inputs;
  for (const Shape& shape : op_case.inputs) {
    inputs.emplace_back();
    for (std::int64_t j = 0; j < shape.elements(); ++j)
      inputs.back().push_back(static_cast<float>(std::sin(
          1.3 * static_cast<double>(j) + 0.01 * static_cast<double>(j * j) + static_cast<double>(inputs.size()))));
  }
  return inputs;
}

class Gradients : public ::testing::TestWithParam<std::tuple<std::string, OpCase>> {
 protected:
  void SetUp() override { testing::skip_unless_available(std::get<0>(GetParam())); }
};
/// Thousands of passes: where the host computes.
class Differences : public Gradients {};

TEST_P(Differences, AgreeWithGradients) {
  const auto& [table, op_case] = GetParam();
  const Rig rig(table);
  MemoryStore store(rig.device(), op_case.parameters, DType::f32, initial_values(op_case));
  Inputs inputs = sine_inputs(op_case);
  const Result analytic = run_case(rig, op_case, store, inputs);
  const std::vector<float> parameter_grads = contributed_grads(store);

  // Richardson's extrapolation of two central differences: the error of the rule is O(h^4), so h may be large and
  // float32's rounding (1e-7 of values of order 1) stays below 1e-4.
  const auto derivative = [&](float& variable) {
    const float at = variable;
    const auto difference = [&](float h) {
      variable = at + h;
      const double up_at = variable;
      store.changed();
      const double up = run_case(rig, op_case, store, inputs).value;
      variable = at - h;
      const double down_at = variable;
      store.changed();
      const double down = run_case(rig, op_case, store, inputs).value;
      variable = at;
      return (up - down) / (up_at - down_at);
    };
    const double coarse = difference(0.04F), fine = difference(0.02F);
    store.changed();
    return fine + (fine - coarse) / 3;
  };
  const auto expect_near = [](double got, double numeric, const std::string& where) {
    // The difference of two float sums of about 1 over 0.04, extrapolated: rounding of some 1e-5, and h^4.
    EXPECT_NEAR(got, numeric, 3e-4 + 1e-3 * std::fabs(numeric)) << where;
  };
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (std::size_t j = 0; j < inputs[i].size(); ++j)
      expect_near(analytic.grads[i][j], derivative(inputs[i][j]), fmt::format("input {} element {}", i, j));
  for (std::size_t p = 0; p < op_case.parameters.size(); ++p) {
    const auto id = static_cast<ParamId>(p);
    for (std::int64_t j = 0; j < op_case.parameters[p].elements(); ++j)
      expect_near(parameter_grads[store.offset(id) + static_cast<std::size_t>(j)], derivative(store.master(id)[j]),
                  fmt::format("{} element {}", op_case.parameters[p].name, j));
  }
}

TEST_P(Gradients, AgreeWithTheReference) {
  const auto& [table, op_case] = GetParam();
  const Inputs inputs = sine_inputs(op_case);
  const auto on = [&](const std::string& name) {
    const Rig rig(name);
    MemoryStore store(rig.device(), op_case.parameters, DType::f32, initial_values(op_case));
    Result result = run_case(rig, op_case, store, inputs);
    result.grads.push_back(contributed_grads(store));
    return result;
  };

  const Result here = on(table), reference = on("reference");

  // fp32 sums of some ten terms of about 1, in another order.
  EXPECT_NEAR(here.value, reference.value, 1e-4);
  ASSERT_EQ(here.grads.size(), reference.grads.size());
  for (std::size_t g = 0; g < here.grads.size(); ++g)
    for (std::size_t i = 0; i < here.grads[g].size(); ++i)
      EXPECT_NEAR(here.grads[g][i], reference.grads[g][i], 2e-5F * (1 + std::fabs(reference.grads[g][i])))
          << g << ", " << i;
}

TEST_P(Gradients, AreAddedToWhatIsThere) {
  const auto& [table, op_case] = GetParam();
  if (op_case.parameters.empty()) {
    EXPECT_FALSE(op_case.inputs.empty()) << "an operation without parameters has inputs";
    return;
  }
  const Rig rig(table);
  MemoryStore store(rig.device(), op_case.parameters, DType::f32, initial_values(op_case));
  Inputs inputs;
  for (const Shape& shape : op_case.inputs) inputs.emplace_back(static_cast<std::size_t>(shape.elements()), 0.5F);

  (void)run_case(rig, op_case, store, inputs);
  const std::vector<float> once = contributed_grads(store);
  (void)run_case(rig, op_case, store, inputs);
  const std::vector<float> twice = contributed_grads(store);

  // The same terms twice, added one by one: fp32 rounding.
  for (std::size_t i = 0; i < once.size(); ++i)
    EXPECT_NEAR(twice[i], 2 * once[i], 1e-5F * (1 + std::fabs(once[i]))) << i;
}

std::string case_name(const ::testing::TestParamInfo<std::tuple<std::string, OpCase>>& info) {
  return std::get<0>(info.param) + "_" + std::get<1>(info.param).name;
}
INSTANTIATE_TEST_SUITE_P(Ops, Gradients, ::testing::Combine(testing::all_tables(), ::testing::ValuesIn(cases())),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Ops, Differences,
                         ::testing::Combine(testing::immediate_tables(), ::testing::ValuesIn(cases())), case_name);

class CrossEntropy : public testing::TableTest {};

TEST_P(CrossEntropy, LossAndGradientAreThoseOfTheFormula) {
  const Rig rig(table());
  const std::int64_t rows = 3, stride = 8, classes = 5;
  const std::vector<std::int32_t> targets = {4, -1, 0};
  const StepState* const state = rig.keep(std::vector<StepState>{{.scale = 4}});
  const testing::SharedMemory loss_sum(rig.device(), sizeof(LossSum));
  MemoryStore store(rig.device(), {}, DType::f32, {});
  const testing::SharedMemory memory(rig.device(), 1 << 12);
  Workspace workspace(memory.data(), memory.bytes());
  Context context({.exec = rig.exec(),
                   .store = &store,
                   .workspace = &workspace,
                   .loss = loss_sum.as<LossSum>().data(),
                   .state = state});
  const Tensor logits = context.make({rows, stride});
  std::vector<double> x;
  for (std::int64_t i = 0; i < rows * stride; ++i) {
    x.push_back(static_cast<double>(static_cast<float>(std::sin(2.1 * static_cast<double>(i)))));
    logits.as<float>()[i] = static_cast<float>(x.back());
  }

  const double* const grad_factor = rig.keep(std::vector<double>{1.0 / (2 * 3)});  // two targets, three micro-batches
  cross_entropy(context, logits, {rig.keep(targets), grad_factor}, classes);
  context.backward();
  rig.synchronize();
  const Tensor grad = context.take_grad(logits).tensor;

  EXPECT_EQ(grad.data(), logits.data()) << "in place";
  double expected = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    const auto at = [&](std::int64_t c) { return x[static_cast<std::size_t>(r * stride + c)]; };
    for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(at(c));
    const std::int32_t target = targets[static_cast<std::size_t>(r)];
    if (target >= 0) expected += std::log(sum) - at(target);
    for (std::int64_t c = 0; c < stride; ++c) {
      double want = 0;
      // 4 loss scale, 2 targets, 3 micro-batches.
      if (target >= 0 && c < classes) want = (std::exp(at(c)) / sum - (c == target ? 1 : 0)) * 4 / (2 * 3);
      EXPECT_NEAR(grad.as<float>()[r * stride + c], want, 2e-6) << r << ", " << c;
    }
  }
  const LossSum loss = loss_sum.as<LossSum>()[0];
  EXPECT_NEAR(loss.loss, expected, 1e-5);
  EXPECT_EQ(loss.weight, 2);
}

INSTANTIATE_TEST_SUITE_P(Ops, CrossEntropy, testing::all_tables(), [](const auto& test) { return test.param; });

/// A row whose backward pass wants more shared memory than a block has without asking: 6,144 floats twice are 48 KiB.
class WideRows : public testing::TableTest {};

TEST_P(WideRows, AreNormalizedForwardAndBackward) {
  constexpr std::int64_t width = 6144;
  const OpCase op_case{"wide",
                       {parameter("gamma", {width}, Init::ones), parameter("beta", {width})},
                       {{3, width}, {3, width}},
                       [](Context& c, const auto& in) -> std::vector<Tensor> {
                         const Normed n = residual_layernorm(c, in[0], in[1], 0, 1);
                         return {n.sum, n.y};
                       }};
  const auto on = [&](const std::string& name) {
    const Rig rig(name);
    MemoryStore store(rig.device(), op_case.parameters, DType::f32, initial_values(op_case));
    Result result = run_case(rig, op_case, store, sine_inputs(op_case));
    result.grads.push_back(contributed_grads(store));
    return result;
  };

  const Result here = on(table()), reference = on("reference");

  // Sums of 6,144 terms of about 1 in fp32: some hundred roundings of them matter.
  for (std::size_t g = 0; g < here.grads.size(); ++g)
    for (std::size_t i = 0; i < here.grads[g].size(); ++i)
      ASSERT_NEAR(here.grads[g][i], reference.grads[g][i], 1e-4F * (1 + std::fabs(reference.grads[g][i])))
          << g << ", " << i;
}

INSTANTIATE_TEST_SUITE_P(Ops, WideRows, testing::all_tables(), [](const auto& test) { return test.param; });

/// Plans, so no kernel runs: only who may write what.
TEST(Ops, AResidualsGradientIsWritableForTheEarlierTensorOnly) {
  for (const bool x_first : {true, false}) {
    Workspace workspace;
    Context context({.exec = {.table = &kernels::reference_table()}, .workspace = &workspace, .mode = Mode::plan});
    const Tensor first = context.make({2, 5}), second = context.make({2, 5});
    const Tensor sum = residual_layernorm(context, x_first ? first : second, x_first ? second : first, 0, 1).sum;
    context.give_grad(sum, context.make({2, 5}), true);
    const std::size_t before = workspace.in_use();

    context.backward();

    EXPECT_FALSE(context.take_grad(second).writable);
    EXPECT_TRUE(context.take_grad(first).writable);
    EXPECT_LE(workspace.in_use(), before) << "no copy";
  }
}

/// The reference table, with products written down as well.
std::vector<MatmulArgs> products;
Status matmul_noted(const Exec& exec, const MatmulArgs& args) {
  products.push_back(args);
  return kernels::reference_table().matmul(exec, args);
}

TEST(Ops, ProductsWithWeightsCarryTheNumberAndVersionThatKeyPackedCopies) {
  KernelTable table = kernels::reference_table();
  table.matmul = matmul_noted;
  const Rig rig(table);
  const std::vector<ParameterSpec> specs = {parameter("w", {7, 7}), parameter("b", {7}), parameter("v", {7, 7})};
  MemoryStore store(rig.device(), specs, DType::f32, testing::sine_values(specs));
  store.changed();
  const OpCase op_case{"", specs, {{4, 7}}, [](Context& c, const auto& in) -> std::vector<Tensor> {
                         return {linear_gelu(c, linear(c, in[0], 7, 0, 1), 7, 2, 1)};
                       }};
  products.clear();

  (void)run_case(rig, op_case, store, {std::vector<float>(28, 0.5F)});

  ASSERT_EQ(products.size(), 6U) << "two forward, four backward";
  for (const MatmulArgs& args : products) {
    EXPECT_EQ(args.b_param, args.b == store.master(0) ? 0 : args.b == store.master(2) ? 2 : -1);
    EXPECT_EQ(args.b_version, args.b_param >= 0 ? store.version(0) : 0);
  }
}

TEST(Ops, OnlyTheFirstContributionToAWeightsGradientReplacesIt) {
  KernelTable table = kernels::reference_table();
  table.matmul = matmul_noted;
  const Rig rig(table);
  const std::vector<ParameterSpec> specs = {parameter("w", {7, 7}), parameter("b", {7})};
  MemoryStore store(rig.device(), specs, DType::f32, testing::sine_values(specs));
  const OpCase op_case{"", specs, {{4, 7}}, [](Context& c, const auto& in) -> std::vector<Tensor> {
                         return {linear(c, linear(c, in[0], 7, 0, 1), 7, 0, 1)};
                       }};
  const auto accumulated = [&] {
    products.clear();
    (void)run_case(rig, op_case, store, {std::vector<float>(28, 0.5F)});
    std::vector<int> result;
    for (const MatmulArgs& args : products)
      if (args.c == store.final_grad(0)) result.push_back(args.accumulate);
    return result;
  };

  const std::vector<int> first_micro_batch = accumulated(), second_micro_batch = accumulated();
  store.begin_step();
  const std::vector<int> next_step = accumulated();

  EXPECT_EQ(first_micro_batch, (std::vector<int>{0, 1}));
  EXPECT_EQ(second_micro_batch, (std::vector<int>{1, 1}));
  EXPECT_EQ(next_step, (std::vector<int>{0, 1}));
}

TEST(Ops, RefuseShapesThatDoNotFit) {
  Workspace workspace;
  Context context({.exec = {.table = &kernels::reference_table()}, .workspace = &workspace, .mode = Mode::plan});
  EXPECT_THROW((void)attention(context, context.make({2, 5, 16}), 2), Error);
  EXPECT_THROW((void)residual_layernorm(context, context.make({2, 5}), context.make({5, 2}), 0, 1), Error);
  EXPECT_THROW(cross_entropy(context, context.make({2, 5}), {}, 6), Error);
}

}  // namespace
}  // namespace lockstep::nn
