#include "nn/mlp.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

class Mlp final : public Model {
 public:
  explicit Mlp(const MlpOptions& options) : options_(options) {
    if (options_.features < 1 || options_.classes < 1)
      fail(ErrorKind::config, "model: features {} and classes {} must be at least 1", options_.features,
           options_.classes);
    if (std::any_of(options_.hidden.begin(), options_.hidden.end(), [](int width) { return width < 1; }))
      fail(ErrorKind::config, "model: every width in hidden [{}] must be at least 1", fmt::join(options_.hidden, ", "));
    std::int64_t in = options_.features;
    for (const int width : options_.hidden) {
      // He et al., "Delving deep into rectifiers", ICCV 2015: keeps the variance through a rectifying activation.
      add_layer(in, width, std::sqrt(2.0 / static_cast<double>(in)));
      in = width;
    }
    add_layer(in, options_.classes, std::sqrt(1.0 / static_cast<double>(in)));
  }

  [[nodiscard]] std::string describe() const override {
    const std::string hidden = options_.hidden.empty() ? "" : fmt::format("{} - ", fmt::join(options_.hidden, " - "));
    return fmt::format("mlp {} parameters: {} - {}{}{}", parameter_count(), options_.features, hidden, options_.classes,
                       options_.dropout > 0 ? fmt::format(", dropout {}", options_.dropout) : "");
  }
  [[nodiscard]] int classes() const override { return options_.classes; }
  [[nodiscard]] int features() const override { return options_.features; }
  [[nodiscard]] int outputs() const override { return options_.regression ? options_.classes : 0; }

  [[nodiscard]] Tensor logits(Context& context, const Batch& batch) override {
    Tensor x = input(context, batch.features, {batch.shape.batch, options_.features});
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      const Context::UnitScope scope(context, layer.unit);
      if (i + 1 == layers_.size()) return linear(context, std::move(x), layer.out, layer.weight, layer.bias);
      x = linear_gelu(context, std::move(x), layer.out, layer.weight, layer.bias);
      x = dropout(context, std::move(x), options_.dropout, static_cast<std::uint32_t>(i), batch.first_sample);
    }
    return x;
  }

 private:
  struct Layer {
    int unit;
    std::int64_t out;
    ParamId weight;
    ParamId bias;
  };
  void add_layer(std::int64_t in, std::int64_t out, double stddev) {
    const std::string name = fmt::format("layers.{}.", layers_.size());
    const int unit = add_unit();
    const ParamId weight =
        add({.name = name + "weight", .shape = {in, out}, .unit = unit, .init = Init::normal, .stddev = stddev});
    const ParamId bias = add({.name = name + "bias", .shape = {out}, .unit = unit, .init = Init::zeros});
    layers_.push_back({unit, out, weight, bias});
  }

  MlpOptions options_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<Model> make_mlp(const MlpOptions& options) { return std::make_unique<Mlp>(options); }

}  // namespace lockstep::nn
