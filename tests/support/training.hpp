#pragma once

// Tiny training runs for the engine's tests: ranks are threads of the test, each computes with one thread unless told
// otherwise.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/local.hpp"
#include "comm/run_ranks.hpp"
#include "comm/staged.hpp"
#include "core/error.hpp"
#include "data/dataset.hpp"
#include "engine/engine.hpp"
#include "kernels/emu/emu_device.hpp"
#include "kernels/table.hpp"
#include "nn/gpt2.hpp"
#include "nn/mlp.hpp"
#include "tests/support/error_text.hpp"
#include "tests/support/places.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::testing {

/// Words in an order that is easy to learn in part: a few hundred sentences over 14 symbols.
inline std::string made_up_text() {
  const char* words[] = {"lamb", "stone", "river", "seven", "bread", "tent"};
  std::string text;
  std::uint32_t state = 1;
  for (int i = 0; i < 600; ++i) {
    state = state * 1664525U + 1013904223U;
    text += words[(state >> 16) % 6];
    text += i % 5 == 4 ? '\n' : ' ';
  }
  return text;
}

/// What a rank needs to make its data and its model.
struct Task {
  std::function<std::unique_ptr<data::Dataset>()> dataset;
  std::function<std::unique_ptr<nn::Model>()> model;
  std::int64_t length = 1;
};

inline Task mlp_task() {
  return {
      .dataset =
          [] { return data::make_clusters({.classes = 4, .features = 8, .samples = 512, .noise = 0.5, .seed = 3}); },
      .model =
          [] {
            return nn::make_mlp({.features = 8, .hidden = {24, 16}, .classes = 4});
          },
      .length = 1};
}

/// Two layers, 32 wide, 16 positions.
inline Task gpt_task(const ScratchFolder& folder) {
  const std::string path = folder / "text.txt";
  if (!std::filesystem::exists(path)) write_text(path, made_up_text());
  const auto dataset = [path] { return data::make_text({.path = path, .length = 16, .seed = 5}); };
  const int symbols = dataset()->classes();
  return {
      .dataset = dataset,
      .model =
          [symbols] {
            return nn::make_gpt2(
                {.n_layer = 2, .n_head = 2, .n_embd = 32, .block_size = 16, .vocab_size = symbols, .padded_vocab = 0});
          },
      .length = 16};
}

inline sched::GroupInitial adam_group(double lr, double weight_decay = 0.01) {
  return {{.lr = lr, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = weight_decay}, true};
}

inline sched::GroupInitial sgd_group(double lr) { return {{.lr = lr}, false}; }

inline ScalerConfig dynamic_scaler(double power, std::int64_t window = 1000) {
  return {.on_overflow = ScalerConfig::OnOverflow::scaled,
          .dynamic = 1,
          .initial_scale = std::exp2(power),
          .min_scale = 1,
          .window = window,
          .hysteresis = 1,
          .consecutive_hysteresis = 0};
}

/// AdamW with a warm-up that the engine steps; buckets small enough that there are several.
inline engine::EngineOptions engine_defaults(const Task& task, std::int64_t micro, int grad_accum = 1,
                                             double lr = 3e-3) {
  engine::EngineOptions options;
  options.micro_batch = {.batch = micro, .length = task.length};
  options.grad_accum = grad_accum;
  options.gradient_clipping = 1.0;
  options.groups = {adam_group(lr)};
  options.schedule = sched::make_schedule(
      "WarmupLR", {{"warmup_min_lr", 0.0}, {"warmup_max_lr", lr}, {"warmup_num_steps", 10}, {"warmup_type", "linear"}},
      options.groups);
  options.bucket_elements = 512;
  return options;
}

/// The micro-batches of one step of one rank, as the trainer deals them out, then the step.
inline void train_step(engine::Engine& engine, const data::Dataset& dataset, std::int64_t step) {
  const std::int64_t micro = engine.options().micro_batch.batch;
  const int ranks = engine.comm().size();
  const std::int64_t leaves = engine.options().leaves;
  const std::int64_t all = leaves > 0 ? leaves : std::int64_t{engine.options().grad_accum} * ranks;
  const sum_tree::Block own = sum_tree::share(all, engine.comm().rank(), ranks);
  data::HostBatch batch;
  for (std::int64_t i = own.begin; i < own.end; ++i) {
    dataset.train_batch((step * all + i) * micro, micro, batch);
    engine.forward(batch);
    engine.backward();
  }
  engine.step();
}

/// The whole of one flat buffer, on every rank. Collective where it is divided.
inline std::vector<float> read_buffer(engine::Engine& engine, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(engine.layout().size()));
  for (int root = 0; root < engine.comm().size(); ++root)
    engine.gather_range(name, 0, engine.layout().size(), values.data(), root);
  return values;
}

inline void write_buffer(engine::Engine& engine, const std::string& name, const std::vector<float>& values) {
  engine.write_range(name, 0, static_cast<std::int64_t>(values.size()), values.data());
}

/// What a rank saw.
struct Outcome {
  std::vector<engine::FinishedStep> results;
  std::vector<float> master;
  StepState state;

  [[nodiscard]] std::vector<double> losses() const { return column(&StepResult::loss); }
  [[nodiscard]] std::vector<double> scales() const { return column(&StepResult::scale); }
  [[nodiscard]] std::vector<double> column(double StepResult::*member) const {
    std::vector<double> values;
    for (const StepResult& result : results) values.push_back(result.*member);
    return values;
  }
  [[nodiscard]] std::vector<int> skips() const {
    std::vector<int> values;
    for (const StepResult& result : results) values.push_back(result.skipped);
    return values;
  }
};

/// Called on every rank after each step; may read and change the engine.
using AfterStep = std::function<void(engine::Engine&, std::int64_t step)>;

struct TrainingRun {
  Task task;
  engine::EngineOptions options;
  int ranks = 1;
  std::int64_t steps = 50;
  int threads = 1;                                                    ///< of each rank, on a CPU
  std::function<void(engine::EngineOptions&, int rank)> adjust = {};  ///< before the engine is made
  std::function<void(engine::Engine&)> prepare = {};                  ///< before the first step
  AfterStep after_step = {};
};

inline Outcome train_rank(const TrainingRun& run, comm::Communicator& comm, engine::Place place) {
  engine::EngineOptions options = run.options;
  if (run.adjust) run.adjust(options, comm.rank());
  const auto dataset = run.task.dataset();
  const auto model = run.task.model();
  engine::Engine engine(*model, comm, place, options);
  if (run.prepare) run.prepare(engine);
  Outcome outcome;
  const auto keep = [&] {
    for (auto some = engine.results(); !some.empty(); some = engine.results())
      outcome.results.insert(outcome.results.end(), some.begin(), some.end());
  };
  for (std::int64_t step = 0; step < run.steps; ++step) {
    train_step(engine, *dataset, step);
    keep();
    if (run.after_step) run.after_step(engine, step);
  }
  engine.drain();
  keep();
  outcome.state = engine.read_state();
  outcome.master = read_buffer(engine, "master");
  return outcome;
}

/// body(communicator, place) on every rank, each a thread of this process with a device of its own; one rank alone is a
/// group by itself. Ranks on GPUs share the first one and exchange by way of the host.
template <class Body>
void on_ranks(const TestPlace& where, int ranks, const Body& body, std::uint64_t seed = 1, int threads = 1) {
  const auto run = [&](comm::Communicator& comm, DeviceApi& device) {
    body(comm, engine::Place{.device = &device, .kernels = &where.kernels(), .threads = threads});
  };
  if (ranks == 1) {
    const auto device = where.make_device(seed * 1000);
    const auto comm = comm::make_single(device.get());
    return run(*comm, *device);
  }
  comm::run_rank_threads(ranks, [&](const std::shared_ptr<comm::LocalGroup>& group, int rank) {
    const auto device = where.make_device(seed * 1000 + static_cast<std::uint64_t>(rank));
    const bool staged = where.kind == TestPlace::Kind::cuda;
    const auto local = comm::make_local(group, rank, {.device = staged ? nullptr : device.get()});
    const auto by_host = staged ? comm::make_staged(*local, *device) : nullptr;
    run(staged ? *by_host : *local, *device);
  });
}

/// The outcome of each rank. The work of emulated devices runs in an order drawn from `seed`.
inline std::vector<Outcome> train_on(const TestPlace& where, const TrainingRun& run, std::uint64_t seed = 1) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(run.ranks));
  on_ranks(
      where, run.ranks,
      [&](comm::Communicator& comm, const engine::Place& place) {
        outcomes[static_cast<std::size_t>(comm.rank())] = train_rank(run, comm, place);
      },
      seed, run.threads);
  return outcomes;
}

inline std::vector<Outcome> train_on_cpu(const TrainingRun& run) { return train_on(cpu_place, run); }
inline std::vector<Outcome> train_emulated(const TrainingRun& run, std::uint64_t seed) {
  return train_on(emulated_place, run, seed);
}

}  // namespace lockstep::testing
