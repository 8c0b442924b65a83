#include "nn/gradient_check.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/device.hpp"
#include "core/error.hpp"
#include "core/rng.hpp"
#include "kernels/table.hpp"

namespace lockstep::nn {
namespace {

/// Values and gradients of every parameter, whole, in host memory.
class HostStore final : public ParameterStore {
 public:
  HostStore(const std::vector<ParameterSpec>& specs, std::uint64_t seed) {
    for (std::size_t p = 0; p < specs.size(); ++p) {
      std::vector<float> values(static_cast<std::size_t>(specs[p].stored_elements()));
      for (std::int64_t i = 0; i < specs[p].elements(); ++i) {
        const double drawn = specs[p].init == Init::normal
                                 ? specs[p].stddev * normal_at(seed, RngStream::init, static_cast<std::uint32_t>(p),
                                                               static_cast<std::uint64_t>(i))
                                 : 0.0;
        values[static_cast<std::size_t>(i)] = static_cast<float>(specs[p].init == Init::ones ? 1.0 : drawn);
      }
      grads_.emplace_back(values.size(), 0.0F);
      values_.push_back(std::move(values));
    }
    begun_.assign(specs.size(), false);
  }

  void acquire(int, Phase) override {}
  void release(int, Phase) override {}
  [[nodiscard]] const void* value(ParamId id) override { return values_[index(id)].data(); }
  [[nodiscard]] std::uint64_t version(ParamId) override { return version_; }
  [[nodiscard]] GradView grad(ParamId id) override { return {grads_[index(id)].data(), !begun_[index(id)]}; }
  void grad_contributed(ParamId id) override { begun_[index(id)] = true; }

  [[nodiscard]] float& element(std::size_t p, std::int64_t i) { return values_[p][static_cast<std::size_t>(i)]; }
  [[nodiscard]] const std::vector<float>& grad_of(std::size_t p) const { return grads_[p]; }
  void changed() { ++version_; }

 private:
  static std::size_t index(ParamId id) { return static_cast<std::size_t>(id); }
  std::vector<std::vector<float>> values_, grads_;
  std::vector<bool> begun_;
  std::uint64_t version_ = 0;
};

class Check {
 public:
  Check(Model& model, const Batch& batch, std::uint64_t seed)
      : model_(model),
        batch_(batch),
        device_(make_cpu_device()),
        context_(kernels::reference_table(), *device_),
        plan_(plan(model, kernels::reference_table(), batch.shape, DType::f32)),
        memory_(*device_, plan_.train_bytes),
        store_(model.parameters(), seed) {
    const std::int64_t rows = batch.shape.batch * batch.shape.length;
    counted_ = static_cast<double>(std::count_if(batch.targets, batch.targets + rows, [](int t) { return t >= 0; }));
    require(counted_ > 0, "check_gradients: the batch has no target that counts");
    grad_factor_ = 1 / counted_;
    batch_.grad_factor = &grad_factor_;
  }

  /// Forward and backward, since a loss may be complete only after both. Gradients are those of the first call; further
  /// ones add to them.
  double mean_loss() {
    LossSum loss;
    Workspace workspace(memory_.data(), memory_.bytes());
    ContextOptions options;
    options.exec = {.table = &kernels::reference_table(), .device = device_.get(), .context = context_.get()};
    options.store = &store_;
    options.workspace = &workspace;
    options.expected = &plan_.ops;
    options.loss = &loss;
    Context context(std::move(options));
    model_.loss(context, batch_);
    context.backward();
    return loss.loss / counted_;
  }
  [[nodiscard]] HostStore& store() { return store_; }

 private:
  Model& model_;
  Batch batch_;
  std::unique_ptr<DeviceApi> device_;
  kernels::Context context_;
  Plan plan_;
  Arena memory_;
  HostStore store_;
  double counted_ = 0;
  double grad_factor_ = 0;
};

}  // namespace

GradientCheck check_gradients(Model& model, const Batch& batch, const GradientCheckOptions& options) {
  Check check(model, batch, options.seed);
  (void)check.mean_loss();
  std::vector<std::vector<float>> backward;
  for (std::size_t p = 0; p < model.parameters().size(); ++p) backward.push_back(check.store().grad_of(p));

  const auto numeric = [&](float& variable) {
    const float at = variable;
    const auto difference = [&](double h) {
      const auto loss_at = [&](float value) {
        variable = value;
        check.store().changed();
        return check.mean_loss();
      };
      const auto up_at = static_cast<float>(at + h), down_at = static_cast<float>(at - h);
      const double up = loss_at(up_at), down = loss_at(down_at);
      variable = at;
      check.store().changed();
      return (up - down) / (static_cast<double>(up_at) - static_cast<double>(down_at));
    };
    const double coarse = difference(options.step), fine = difference(options.step / 2);
    return fine + (fine - coarse) / 3;
  };

  GradientCheck result;
  for (std::size_t p = 0; p < backward.size(); ++p) {
    const std::int64_t count = model.parameters()[p].elements();
    const std::int64_t tried = std::min(count, std::max<std::int64_t>(1, options.elements));
    double largest = 1e-3;
    for (std::int64_t i = 0; i < count; ++i)
      largest = std::max(largest, std::fabs(static_cast<double>(backward[p][static_cast<std::size_t>(i)])));
    for (std::int64_t k = 0; k < tried; ++k, ++result.elements) {
      const std::int64_t i = k * count / tried;
      const double analytic = static_cast<double>(backward[p][static_cast<std::size_t>(i)]);
      const double measured = numeric(check.store().element(p, i));
      const double apart = std::fabs(analytic - measured) / largest;
      const double difference = std::isnan(apart) ? std::numeric_limits<double>::infinity() : apart;
      if (difference <= result.worst && !result.parameter.empty()) continue;
      result.worst = difference;
      result.parameter = model.parameters()[p].name;
      result.element = i;
      result.backward = analytic;
      result.numeric = measured;
    }
  }
  return result;
}

}  // namespace lockstep::nn
