#include "optim/optimizer.hpp"

#include "core/error.hpp"

namespace lockstep::optim {
namespace {

class Adam final : public Optimizer {
 public:
  explicit Adam(const OptimizerOptions& options)
      : eps_(static_cast<float>(options.eps)), decoupled_(options.decoupled) {}
  [[nodiscard]] std::string_view name() const override { return decoupled_ ? "AdamW" : "Adam"; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"exp_avg", "exp_avg_sq"}; }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    kernels::adam(exec, {.master = update.master,
                         .m = moments.at(0),
                         .v = moments.at(1),
                         .param16 = update.param16,
                         .param16_dtype = update.param16_dtype,
                         .grad = update.grad,
                         .tiles = update.tiles,
                         .tile_count = update.tile_count,
                         .groups = update.groups,
                         .state = update.state,
                         .eps = eps_,
                         .decoupled = decoupled_ ? 1 : 0});
  }

 private:
  float eps_;
  bool decoupled_;
};

class Sgd final : public Optimizer {
 public:
  explicit Sgd(const OptimizerOptions& options) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "SGD"; }
  [[nodiscard]] std::vector<std::string> moments() const override {
    return options_.momentum ? std::vector<std::string>{"momentum_buffer"} : std::vector<std::string>{};
  }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    kernels::sgd(exec, {.master = update.master,
                        .momentum = moments.empty() ? nullptr : moments.front(),
                        .param16 = update.param16,
                        .param16_dtype = update.param16_dtype,
                        .grad = update.grad,
                        .tiles = update.tiles,
                        .tile_count = update.tile_count,
                        .groups = update.groups,
                        .state = update.state,
                        .dampening = static_cast<float>(options_.dampening),
                        .nesterov = options_.nesterov ? 1 : 0});
  }

 private:
  OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options) {
  if (options.kind == OptimizerOptions::Kind::adam) return std::make_unique<Adam>(options);
  require(!options.nesterov || (options.momentum && options.dampening == 0),
          "SGD: nesterov needs a momentum and zero dampening");
  return std::make_unique<Sgd>(options);
}

}  // namespace lockstep::optim
