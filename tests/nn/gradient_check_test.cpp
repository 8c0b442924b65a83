#include "nn/gradient_check.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nn/mlp.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

/// y = factor x, whose backward half says another factor.
class Scaled final : public Model {
 public:
  Scaled(float factor, float backward_factor) : factor_(factor), backward_factor_(backward_factor) {
    unit_ = add_unit();
    weight_ = add({.name = "below.weight", .shape = {3, 4}, .unit = unit_, .stddev = 0.7});
    out_ = add({.name = "above.weight", .shape = {4, 2}, .unit = unit_, .stddev = 0.7});
  }
  [[nodiscard]] std::string describe() const override { return "scaled"; }
  [[nodiscard]] int classes() const override { return 2; }
  [[nodiscard]] int features() const override { return 3; }
  [[nodiscard]] Tensor logits(Context& context, const Batch& batch) override {
    const Context::UnitScope scope(context, unit_);
    Tensor x = input(context, batch.features, {batch.shape.batch, 3});
    return linear(context, scaled(context, linear(context, x, 4, weight_, no_parameter)), 2, out_, no_parameter);
  }

 private:
  Tensor scaled(Context& context, const Tensor& x) const {
    context.begin("scaled", x.shape(), {}, {});
    Tensor y = context.make(x.shape());
    const std::int64_t count = context.planning() ? 0 : x.shape().elements();
    for (std::int64_t i = 0; i < count; ++i) y.as<float>()[i] = factor_ * x.as<float>()[i];
    context.end([x = TensorRef(x), y = TensorRef(y), factor = backward_factor_](Context& c) {
      const Tensor dy = c.take_grad(y).tensor;
      const Tensor dx = c.make(x.shape);
      const std::int64_t elements = c.planning() ? 0 : x.shape.elements();
      for (std::int64_t i = 0; i < elements; ++i) dx.as<float>()[i] = factor * dy.as<float>()[i];
      c.give_grad(x, dx, true);
    });
    return y;
  }
  float factor_, backward_factor_;
  int unit_;
  ParamId weight_, out_;
};

GradientCheck check(Model& model) {
  std::vector<float> features;
  std::vector<std::int32_t> targets;
  for (int i = 0; i < 8; ++i) {
    for (int f = 0; f < model.features(); ++f) features.push_back(std::sin(1.7F * static_cast<float>(i * 3 + f)));
    targets.push_back(i == 2 ? -1 : i % model.classes());
  }
  return check_gradients(model, {.shape = {8, 1}, .features = features.data(), .targets = targets.data()});
}

TEST(GradientCheck, ARightGradientPasses) {
  const auto mlp = make_mlp({.features = 3, .hidden = {5, 4}, .classes = 3});
  const GradientCheck result = check(*mlp);
  EXPECT_LT(result.worst, 5e-3) << result.parameter;
  EXPECT_EQ(result.elements, 15 + 5 + 16 + 4 + 12 + 3) << "at most 16 of each parameter";
  Scaled right(1.5F, 1.5F);
  EXPECT_LT(check(right).worst, 5e-3);
}

TEST(GradientCheck, AWrongGradientIsNamed) {
  Scaled wrong(1.5F, 3.0F);
  const GradientCheck result = check(wrong);
  EXPECT_GT(result.worst, 0.3);
  EXPECT_EQ(result.parameter, "below.weight");
  EXPECT_NEAR(result.backward, 2 * result.numeric, 0.02 * std::fabs(result.backward));
}

TEST(GradientCheck, AGradientThatIsNoNumberIsTheWorst) {
  Scaled broken(1.5F, std::nanf(""));
  const GradientCheck result = check(broken);
  EXPECT_TRUE(std::isinf(result.worst));
  EXPECT_EQ(result.parameter, "below.weight");
}

}  // namespace
}  // namespace lockstep::nn
