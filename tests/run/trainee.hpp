#pragma once

#include <memory>
#include <optional>
#include <string>

#include "run/checkpoint.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {

using testing::Task;

/// What a manifest says of a run, but for the steps.
inline RunState some_state() {
  return {.step = {},
          .sample_position = 44,
          .seed = 7,
          .train_batch = 4,
          .micro_batch = 2,
          .world = 3,
          .threads = 5,
          .isa = "avx2",
          .job = "run:\n  name: a\n",
          .data = "0123456789abcdef"};
}

/// body(engine) on ranks that are threads, each with an fp32 engine whose parameters come from `seed`.
inline void engines_on(const Task& task, int ranks, std::uint64_t seed,
                       const std::function<void(engine::Engine&)>& body, int zero_stage = 0) {
  testing::on_ranks(testing::cpu_place, ranks, [&](comm::Communicator& comm, const engine::Place& place) {
    const auto model = task.model();
    engine::EngineOptions options = testing::engine_defaults(task, 4);
    options.seed = seed;
    options.zero_stage = zero_stage;
    engine::Engine engine(*model, comm, place, options);
    body(engine);
  });
}

/// A rank that trains in fp16 from a scale that overflows, so that every field of the StepState moves.
struct Trainee {
  explicit Trainee(const Task& task = testing::mlp_task(), std::uint64_t seed = 1, bool sgd = false,
                   const testing::TestPlace& where = testing::cpu_place)
      : dataset(task.dataset()),
        model(task.model()),
        device(where.make_device()),
        comm(comm::make_single(device.get())) {
    engine::EngineOptions options = testing::engine_defaults(task, 4);
    options.compute = DType::f16;
    options.scaler = testing::dynamic_scaler(26, 3);
    options.seed = seed;
    if (sgd) options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .momentum = true};
    engine.emplace(*model, *comm, engine::Place{.device = device.get(), .kernels = &where.kernels(), .threads = 1},
                   options);
  }
  void train(std::int64_t steps) {
    for (std::int64_t i = 0; i < steps; ++i) testing::train_step(*engine, *dataset, engine->read_state().attempted);
  }
  [[nodiscard]] RunState run_state() {
    RunState state = some_state();
    state.step = engine->read_state();
    return state;
  }

  std::unique_ptr<data::Dataset> dataset;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<DeviceApi> device;
  std::unique_ptr<comm::Communicator> comm;
  std::optional<engine::Engine> engine;
};

/// Collective: a whole checkpoint in the folder `path`, which is there; for rank 0 to finish.
inline void write_checkpoint(const std::string& path, engine::Engine& engine, const RunState& state) {
  FirstError error;
  ShardWriter shards(path, engine, error);
  const std::vector<FileEntry> entries = shards.finish();
  error.rethrow("");
  finish_checkpoint(path, {.state = state, .files = entries, .tensors = tensors_of(engine)});
}

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

}  // namespace lockstep::run
