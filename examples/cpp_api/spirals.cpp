// A model, data and a training loop of one's own:  mpirun -n 2 ./spirals job.yaml [--user-managed]
#include "spirals.hpp"

#include <cstdio>
#include <cstring>

using namespace lockstep;

/// Two residual blocks between an embedding of the points and a classifier.
class SpiralNet final : public nn::Model {
 public:
  explicit SpiralNet(int classes) : classes_(classes) {
    const auto weight = [&](const char* name, std::int64_t in, std::int64_t out, int unit) {
      const double stddev = std::sqrt(2.0 / static_cast<double>(in));
      return add({.name = name, .shape = {in, out}, .unit = unit, .stddev = stddev});
    };
    const auto vector = [&](const std::string& name, std::int64_t n, int unit, nn::Init init) {
      return add({.name = name, .shape = {n}, .unit = unit, .init = init});
    };
    unit_ = add_unit();  // gathered and released as one; a large model has one a block
    in_ = weight("in.weight", 2, width, unit_);
    in_bias_ = vector("in.bias", width, unit_, nn::Init::zeros);
    for (Block& block : blocks_) {
      const std::string name = &block == blocks_ ? "block.0." : "block.1.";
      block.gamma = vector(name + "ln.weight", width, unit_, nn::Init::ones);
      block.beta = vector(name + "ln.bias", width, unit_, nn::Init::zeros);
      block.weight = weight((name + "fc.weight").c_str(), width, width, unit_);
      block.bias = vector(name + "fc.bias", width, unit_, nn::Init::zeros);
    }
    out_ = weight("out.weight", width, classes, unit_);
    out_bias_ = vector("out.bias", classes, unit_, nn::Init::zeros);
  }

  std::string describe() const override { return "spiral net"; }
  int classes() const override { return classes_; }
  int features() const override { return 2; }

  /// x [batch, 2] -> logits [batch, classes]. The loss is their cross-entropy, the backward pass comes from the tape.
  nn::Tensor logits(nn::Context& context, const nn::Batch& batch) override {
    const nn::Context::UnitScope parameters(context, unit_);
    nn::Tensor x = nn::input(context, batch.features, {batch.shape.batch, 2});
    x = nn::linear_gelu(context, x, width, in_, in_bias_);
    nn::Tensor branch = x;
    for (const Block& block : blocks_) {
      const nn::Normed normed = nn::residual_layernorm(context, x, branch, block.gamma, block.beta);
      x = normed.sum;
      branch = nn::linear_gelu(context, normed.y, width, block.weight, block.bias);
    }
    return nn::linear(context, branch, classes_, out_, out_bias_);
  }

 private:
  static constexpr std::int64_t width = 64;
  struct Block {
    nn::ParamId gamma, beta, weight, bias;
  };
  int classes_, unit_;
  nn::ParamId in_, in_bias_, out_, out_bias_;
  Block blocks_[2];
};

void train(const char* job_file, bool user_managed) {
  const Spirals data(3);
  SpiralNet model(data.classes());
  Training training = initialize(model, job_file, {.user_managed_scheduler = user_managed});
  const bool prints = training.rank() == 0;

  if (const auto loaded = training.load(); loaded && prints)
    std::printf("going on from %s: %s\n", loaded->path.c_str(), loaded->client_state.c_str());

  data::HostBatch batch;
  while (training.step_count() < training.steps()) {
    for (const std::int64_t position : training.sample_positions()) {
      data.train_batch(position, training.micro_batch(), batch);
      training.forward(batch);
      training.backward();
    }
    training.step();
    if (user_managed) training.scheduler().step();

    for (const engine::FinishedStep& step : training.results())
      if (prints && (step.step + 1) % 50 == 0)
        std::printf("step %ld  loss %.4f  lr %.6f  norm %.2f\n", static_cast<long>(step.step + 1), step.loss,
                    step.applied_values[0].lr, step.grad_norm);
    if (training.step_count() % 100 == 0) {
      const std::optional<engine::Evaluation> now = training.evaluate(data);
      training.save("validation loss " + std::to_string(now->loss));
      if (prints) std::printf("validation loss %.4f, accuracy %.4f\n", now->loss, *now->accuracy);
    }
  }
}

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: spirals JOB.yaml [--user-managed]\n"), 2;
  const bool user_managed = argc > 2 && std::strcmp(argv[2], "--user-managed") == 0;
  return launch([&] { train(argv[1], user_managed); });
}
