// An operation of one's own, held against finite differences:  ./squared_relu
#include <cstdio>

#include "spirals.hpp"

using namespace lockstep;

/// max(x, 0)^2, element by element, on CPUs in fp32. So et al., "Primer", NeurIPS 2021.
nn::Tensor squared_relu(nn::Context& context, nn::Tensor x) {
  const nn::Shape shape = x.shape();
  const auto elements = static_cast<double>(shape.elements());
  // What the plan should know of each half: floating-point operations and bytes. `begin` comes before any work.
  context.begin("squared_relu", shape, {2 * elements, 8 * elements}, {2 * elements, 12 * elements});
  nn::Tensor y = context.make(shape);
  if (!context.planning()) {  // a plan has shapes only; every pointer is null
    const float* from = x.as<float>();
    float* to = y.as<float>();
    for (std::int64_t i = 0; i < shape.elements(); ++i) to[i] = from[i] > 0 ? from[i] * from[i] : 0;
  }
  // The backward half keeps what it captures alive: here x, whose memory nobody else gets before it has run.
  context.end([x, y = nn::TensorRef(y)](nn::Context& c) {
    const nn::Context::Grad dy = c.take_grad(y);
    if (!dy.tensor.defined() || !c.needs_grad(x)) return;
    const nn::Tensor dx = dy.writable ? dy.tensor : c.make(x.shape());
    if (!c.planning()) {
      const float *at = x.as<float>(), *from = dy.tensor.as<float>();
      float* to = dx.as<float>();
      for (std::int64_t i = 0; i < x.shape().elements(); ++i) to[i] = at[i] > 0 ? 2 * at[i] * from[i] : 0;
    }
    c.give_grad(x, dx, true);
  });
  return y;
}

/// A layer, the operation, a classifier.
class Net final : public nn::Model {
 public:
  Net() {
    unit_ = add_unit();
    w1_ = add({.name = "fc1.weight", .shape = {2, 16}, .unit = unit_, .stddev = 1.0});
    b1_ = add({.name = "fc1.bias", .shape = {16}, .unit = unit_, .stddev = 0.5});
    w2_ = add({.name = "fc2.weight", .shape = {16, 3}, .unit = unit_, .stddev = 0.5});
  }
  std::string describe() const override { return "squared relu"; }
  int classes() const override { return 3; }
  int features() const override { return 2; }
  nn::Tensor logits(nn::Context& context, const nn::Batch& batch) override {
    const nn::Context::UnitScope parameters(context, unit_);
    nn::Tensor x = nn::input(context, batch.features, {batch.shape.batch, 2});
    x = squared_relu(context, nn::linear(context, x, 16, w1_, b1_));
    return nn::linear(context, x, 3, w2_, nn::no_parameter);
  }

 private:
  int unit_;
  nn::ParamId w1_, b1_, w2_;
};

int main() {
  data::HostBatch points;
  Spirals(3).train_batch(0, 32, points);
  Net net;
  const nn::GradientCheck check = nn::check_gradients(
      net, {.shape = {32, 1}, .features = points.features.data(), .targets = points.targets.data()});
  std::printf("%ld elements; worst: %s[%ld]: backward %.6f, differences %.6f (%.1e of the largest)\n",
              static_cast<long>(check.elements), check.parameter.c_str(), static_cast<long>(check.element),
              check.backward, check.numeric, check.worst);
  return check.worst < 0.01 ? 0 : 1;
}
