// Dropout through whole training runs: a function of seed, step and sample, whoever computes it.

#include <gtest/gtest.h>

#include <cstring>

#include "engine/evaluate.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::engine_defaults;
using testing::gpt_task;
using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::train_on_cpu;
using testing::TrainingRun;

Task thinned_gpt(const ScratchFolder& folder, double probability) {
  Task task = gpt_task(folder);
  const int symbols = task.dataset()->classes();
  task.model = [symbols, probability] {
    return nn::make_gpt2({.n_layer = 2,
                          .n_head = 2,
                          .n_embd = 32,
                          .block_size = 16,
                          .vocab_size = symbols,
                          .embd_pdrop = probability,
                          .resid_pdrop = probability,
                          .padded_vocab = 0});
  };
  return task;
}

Task thinned_mlp(double probability) {
  Task task = testing::mlp_task();
  task.model = [probability] {
    return nn::make_mlp({.features = 8, .hidden = {24, 16}, .classes = 4, .dropout = probability});
  };
  return task;
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
  ASSERT_EQ(a.losses(), b.losses());
  ASSERT_EQ(a.master.size(), b.master.size());
  EXPECT_EQ(std::memcmp(a.master.data(), b.master.data(), a.master.size() * sizeof(float)), 0);
}

TEST(Dropout, IsTheSameForAnyNumberOfRanks) {
  const ScratchFolder folder;
  for (const Task& task : {thinned_gpt(folder, 0.2), thinned_mlp(0.3)}) {
    constexpr int leaves = 6;
    const auto with = [&](int ranks) {
      TrainingRun run{task, engine_defaults(task, 2), ranks, 8};
      run.options.leaves = leaves;
      run.adjust = [=](EngineOptions& options, int rank) {
        options.grad_accum = static_cast<int>(sum_tree::share(leaves, rank, ranks).size());
      };
      return train_on_cpu(run)[0];
    };
    const Outcome one = with(1);
    for (const int ranks : {2, 3}) expect_same_bits(with(ranks), one);
  }
}

TEST(Dropout, FollowsTheSeed) {
  const Task task = thinned_mlp(0.3);
  TrainingRun run{task, engine_defaults(task, 4), 1, 1};
  const double first = train_on_cpu(run)[0].losses()[0];
  run.options.seed = 2;
  // The same initial parameters, another mask.
  run.prepare = [&](Engine& engine) {
    const auto model = task.model();
    const auto comm = comm::make_single(nullptr);
    const auto device = make_cpu_device();
    Engine seeded(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                  engine_defaults(task, 4));
    testing::write_buffer(engine, "master", testing::read_buffer(seeded, "master"));
  };
  EXPECT_NE(train_on_cpu(run)[0].losses()[0], first);
}

TEST(Dropout, IsOffInEvaluation) {
  const ScratchFolder folder;
  const auto initial_loss = [&](const Task& task) {
    const auto model = task.model();
    const auto dataset = task.dataset();
    const auto comm = comm::make_single(nullptr);
    const auto device = make_cpu_device();
    Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                  engine_defaults(task, 4));
    return evaluate_all(engine, *dataset)->loss;
  };
  EXPECT_EQ(initial_loss(thinned_gpt(folder, 0.5)), initial_loss(thinned_gpt(folder, 0)));
  EXPECT_EQ(initial_loss(thinned_mlp(0.5)), initial_loss(thinned_mlp(0)));
}

TEST(Dropout, GoesOnFromACheckpointWithTheSameBits) {
  const ScratchFolder folder;
  const Task task = thinned_gpt(folder, 0.2);
  std::vector<std::vector<float>> buffers;
  StepState state;
  TrainingRun straight{task, engine_defaults(task, 4), 1, 10};
  straight.after_step = [&](Engine& engine, std::int64_t step) {
    if (step != 5) return;
    for (const std::string& name : engine.buffer_names()) buffers.push_back(testing::read_buffer(engine, name));
    state = engine.read_state();
  };
  const Outcome whole = train_on_cpu(straight)[0];

  const auto model = task.model();
  const auto dataset = task.dataset();
  const auto comm = comm::make_single(nullptr);
  const auto device = make_cpu_device();
  Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                engine_defaults(task, 4));
  for (std::size_t b = 0; b < buffers.size(); ++b) testing::write_buffer(engine, engine.buffer_names()[b], buffers[b]);
  engine.write_state(state);
  for (std::int64_t step = 6; step < 10; ++step) testing::train_step(engine, *dataset, step);
  engine.drain();

  EXPECT_EQ(testing::read_buffer(engine, "master"), whole.master);
}

TEST(Dropout, IsTheSameOnADeviceThatPutsWorkOff) {
  const Task task = thinned_mlp(0.3);
  TrainingRun run{task, engine_defaults(task, 4, 2), 2, 6};
  const Outcome cpu = train_on_cpu(run)[0];
  for (const std::uint64_t seed : {1U, 2U}) {
    const Outcome emulated = testing::train_emulated(run, seed)[0];
    ASSERT_EQ(emulated.results.size(), cpu.results.size());
    // Another mask would be far off; another order of sums is not.
    for (std::size_t s = 0; s < cpu.results.size(); ++s)
      EXPECT_NEAR(emulated.losses()[s], cpu.losses()[s], 1e-4 * cpu.losses()[s]) << s;
  }
}

TEST(Dropout, LearnsNevertheless) {
  const Task task = thinned_mlp(0.2);
  const std::vector<double> losses = train_on_cpu({task, engine_defaults(task, 16, 1, 1e-2), 1, 60})[0].losses();
  EXPECT_LT(losses.back(), 0.5 * losses.front());
}

}  // namespace
}  // namespace lockstep::engine
