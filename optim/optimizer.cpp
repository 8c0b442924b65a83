#include "optim/optimizer.hpp"

#include "core/error.hpp"
#include "optim/muon.hpp"
#include "optim/update_args.hpp"

namespace lockstep::optim {
namespace {

class Adam final : public Optimizer {
 public:
  explicit Adam(const OptimizerOptions& options)
      : eps_(static_cast<float>(options.eps)), decoupled_(options.decoupled) {}
  [[nodiscard]] std::string_view name() const override { return decoupled_ ? "AdamW" : "Adam"; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"exp_avg", "exp_avg_sq"}; }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    auto args = args_of<AdamArgs>(update);
    args.m = moments.at(0);
    args.v = moments.at(1);
    args.eps = eps_;
    args.decoupled = decoupled_ ? 1 : 0;
    kernels::adam(exec, args);
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
    auto args = args_of<SgdArgs>(update);
    args.momentum = moments.empty() ? nullptr : moments.front();
    args.dampening = static_cast<float>(options_.dampening);
    args.nesterov = options_.nesterov ? 1 : 0;
    kernels::sgd(exec, args);
  }

 private:
  OptimizerOptions options_;
};

class Lion final : public Optimizer {
 public:
  [[nodiscard]] std::string_view name() const override { return "Lion"; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"exp_avg"}; }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    auto args = args_of<LionArgs>(update);
    args.m = moments.at(0);
    kernels::lion(exec, args);
  }
};

class Adagrad final : public Optimizer {
 public:
  explicit Adagrad(const OptimizerOptions& options)
      : eps_(static_cast<float>(options.eps)), initial_(static_cast<float>(options.initial_accumulator)) {}
  [[nodiscard]] std::string_view name() const override { return "Adagrad"; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"sum"}; }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    auto args = args_of<AdagradArgs>(update);
    args.sum = moments.at(0);
    args.eps = eps_;
    args.initial = initial_;
    kernels::adagrad(exec, args);
  }

 private:
  float eps_;
  float initial_;
};

class Lamb final : public Optimizer {
 public:
  explicit Lamb(const OptimizerOptions& options) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "Lamb"; }
  [[nodiscard]] Granularity granularity() const override { return Granularity::tensor_norm; }
  [[nodiscard]] std::vector<std::string> moments() const override { return {"exp_avg", "exp_avg_sq"}; }
  [[nodiscard]] std::size_t scratch_bytes(std::size_t tile_count) const override {
    return tile_count * (sizeof(LambSquares) + sizeof(float));
  }
  void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const override {
    auto args = args_of<LambArgs>(update);
    args.m = moments.at(0);
    args.v = moments.at(1);
    args.tensors = update.tensors;
    args.tensor_count = update.tensor_count;
    args.squares = static_cast<LambSquares*>(update.scratch);
    args.steps = reinterpret_cast<float*>(args.squares + update.tile_count);
    args.eps = static_cast<float>(options_.eps);
    args.min_coeff = options_.min_coeff;
    args.max_coeff = options_.max_coeff;
    kernels::lamb(exec, args);
  }

 private:
  OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const std::vector<Tensor>& tensors) {
  switch (options.kind) {
    case OptimizerOptions::Kind::sgd:
      require(!options.nesterov || (options.momentum && options.dampening == 0),
              "SGD: nesterov needs a momentum and zero dampening");
      return std::make_unique<Sgd>(options);
    case OptimizerOptions::Kind::lion:
      return std::make_unique<Lion>();
    case OptimizerOptions::Kind::adagrad:
      return std::make_unique<Adagrad>(options);
    case OptimizerOptions::Kind::lamb:
      require(options.min_coeff <= options.max_coeff, "Lamb: min_coeff is above max_coeff");
      return std::make_unique<Lamb>(options);
    case OptimizerOptions::Kind::muon:
      return make_muon(options, tensors);
    case OptimizerOptions::Kind::adam:
      break;
  }
  return std::make_unique<Adam>(options);
}

}  // namespace lockstep::optim
