#include "nn/convnet.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

class Convnet final : public Model {
 public:
  explicit Convnet(const ConvnetOptions& options) : options_(options) {
    check();
    std::int64_t height = options_.height, width = options_.width, in = options_.channels;
    for (const int filters : options_.filters) {
      if (height < options_.pool || width < options_.pool)
        fail(ErrorKind::config,
             "model: {} convolutions with pool {} need larger images than {} x {}: convolution {} would pool {} x {}. "
             "Use fewer filters or a smaller pool",
             options_.filters.size(), options_.pool, options_.height, options_.width, convolutions_.size() + 1, height,
             width);
      const std::int64_t taps = std::int64_t{options_.kernel} * options_.kernel;
      // He et al., "Delving deep into rectifiers", ICCV 2015.
      const Layer layer = add_layer(fmt::format("convolutions.{}.", convolutions_.size()),
                                    {options_.kernel, options_.kernel, in, filters}, filters,
                                    std::sqrt(2.0 / static_cast<double>(taps * in)));
      convolutions_.push_back(layer);
      height /= options_.pool;
      width /= options_.pool;
      in = filters;
    }
    in *= height * width;
    for (std::size_t i = 0; i <= options_.hidden.size(); ++i) {
      const bool last = i == options_.hidden.size();
      const std::int64_t out = last ? options_.classes : options_.hidden[i];
      layers_.push_back(add_layer(fmt::format("layers.{}.", i), {in, out}, out,
                                  std::sqrt((last ? 1.0 : 2.0) / static_cast<double>(in))));
      in = out;
    }
  }

  [[nodiscard]] std::string describe() const override {
    std::string text = fmt::format("convnet {} parameters: {} x {} x {}, {} x {} convolutions {}", parameter_count(),
                                   options_.height, options_.width, options_.channels, options_.kernel, options_.kernel,
                                   fmt::join(options_.filters, " - "));
    if (options_.pool > 1) text += fmt::format(" each pooled by {}", options_.pool);
    text += fmt::format(", layers {}{}{}", fmt::join(options_.hidden, " - "), options_.hidden.empty() ? "" : " - ",
                        options_.classes);
    if (options_.dropout > 0) text += fmt::format(", dropout {}", options_.dropout);
    return text;
  }
  [[nodiscard]] int classes() const override { return options_.classes; }
  [[nodiscard]] int features() const override { return options_.height * options_.width * options_.channels; }

  [[nodiscard]] Tensor logits(Context& context, const Batch& batch) override {
    std::uint32_t dropouts = 0;
    const auto thinned = [&](Tensor x) {
      return dropout(context, std::move(x), options_.dropout, dropouts++, batch.first_sample);
    };
    Tensor x = input(context, batch.features, {batch.shape.batch, options_.height, options_.width, options_.channels});
    for (std::size_t i = 0; i < convolutions_.size(); ++i) {
      const Layer& layer = convolutions_[i];
      const bool last = i + 1 == convolutions_.size();
      const Context::UnitScope scope(context, layer.unit);
      x = convolution(context, std::move(x),
                      {.out = layer.out,
                       .kernel = options_.kernel,
                       .pool = options_.pool,
                       .weight = layer.weight,
                       .bias = layer.bias},
                      last);
      if (last) x = thinned(std::move(x));
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      const Context::UnitScope scope(context, layer.unit);
      if (i + 1 == layers_.size()) return linear(context, std::move(x), layer.out, layer.weight, layer.bias);
      x = thinned(linear_gelu(context, std::move(x), layer.out, layer.weight, layer.bias));
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

  void check() const {
    if (options_.height < 1 || options_.width < 1 || options_.channels < 1)
      fail(ErrorKind::config, "model: a convnet needs images; these samples are {} x {} x {}", options_.height,
           options_.width, options_.channels);
    if (options_.classes < 1) fail(ErrorKind::config, "model: classes {} must be at least 1", options_.classes);
    const auto below_one = [](int width) { return width < 1; };
    if (options_.filters.empty() || std::any_of(options_.filters.begin(), options_.filters.end(), below_one))
      fail(ErrorKind::config, "model: filters [{}] must be at least one number, each at least 1",
           fmt::join(options_.filters, ", "));
    if (std::any_of(options_.hidden.begin(), options_.hidden.end(), below_one))
      fail(ErrorKind::config, "model: every width in hidden [{}] must be at least 1", fmt::join(options_.hidden, ", "));
    if (options_.kernel < 1 || options_.kernel % 2 == 0)
      fail(ErrorKind::config, "model: kernel {} must be odd: the result is centred on a pixel", options_.kernel);
    if (options_.pool < 1) fail(ErrorKind::config, "model: pool {} must be at least 1", options_.pool);
  }

  Layer add_layer(const std::string& name, std::vector<std::int64_t> shape, std::int64_t out, double stddev) {
    const int unit = add_unit();
    const ParamId weight =
        add({.name = name + "weight", .shape = std::move(shape), .unit = unit, .init = Init::normal, .stddev = stddev});
    const ParamId bias = add({.name = name + "bias", .shape = {out}, .unit = unit, .init = Init::zeros});
    return {unit, out, weight, bias};
  }

  ConvnetOptions options_;
  std::vector<Layer> convolutions_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<Model> make_convnet(const ConvnetOptions& options) { return std::make_unique<Convnet>(options); }

}  // namespace lockstep::nn
