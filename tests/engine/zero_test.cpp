// ZeRO: the same training with its state divided over ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/evaluate.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::engine_defaults;
using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::train_on;

class ZeroTest : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Engines, ZeroTest, testing::all_places(), testing::place_name);

/// Layers of several leaves, so that parts of one parameter are on several ranks.
Task wide_task() {
  Task task = testing::mlp_task();
  task.model = [] { return nn::make_mlp({.features = 8, .hidden = {230, 210}, .classes = 4}); };
  return task;
}

/// More units than are in memory at once, and parameters with padding behind them.
Task deep_task(const ScratchFolder& folder) {
  Task task = testing::gpt_task(folder);
  const int symbols = task.dataset()->classes();
  task.model = [symbols] {
    return nn::make_gpt2({.n_layer = 5, .n_head = 2, .n_embd = 40, .block_size = 16, .vocab_size = symbols});
  };
  return task;
}

/// How state is divided.
struct Way {
  int stage = 0;
  bool one_copy = false;
};

std::string to_text(const Way& way) { return fmt::format("stage {}{}", way.stage, way.one_copy ? ", one copy" : ""); }

EngineOptions staged(EngineOptions options, Way way) {
  options.zero_stage = way.stage;
  options.one_copy = way.one_copy;
  return options;
}

/// Besides stage 0 with a copy on every rank. One copy is for devices that do their work at once.
std::vector<Way> ways(const testing::TestPlace& place) {
  std::vector<Way> all = {{1}, {2}, {3}};
  if (!place.emulated())
    for (const int stage : {0, 1, 2}) all.push_back({stage, true});
  return all;
}

void expect_same(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.losses(), b.losses());
  // A skipped step's norm may be no number, which equals nothing.
  const auto norms = [](const Outcome& outcome) {
    std::vector<double> values = outcome.column(&StepResult::grad_norm);
    for (double& value : values)
      if (std::isnan(value)) value = -1;
    return values;
  };
  EXPECT_EQ(norms(a), norms(b));
  EXPECT_EQ(a.scales(), b.scales());
  EXPECT_EQ(a.skips(), b.skips());
  EXPECT_EQ(a.master, b.master);
}

TEST_P(ZeroTest, EveryStageHasTheBitsOfStageZeroWithOneMicroBatchAStep) {
  const ScratchFolder folder;
  const std::vector<Task> tasks =
      place().emulated() ? std::vector<Task>{wide_task()} : std::vector<Task>{wide_task(), deep_task(folder)};
  for (const Task& task : tasks)
    for (const DType compute : {DType::f32, DType::bf16, DType::f16})
      for (const int ranks : {2, 3, 4}) {
        if (place().emulated() && (ranks == 4 || compute == DType::f16)) continue;
        EngineOptions options = engine_defaults(task, 2);
        options.compute = compute;
        if (compute == DType::f16) options.scaler = testing::dynamic_scaler(24);
        const auto plain = train_on(place(), {task, options, ranks, place().steps(10, 4)});
        for (const Way& way : ways(place())) {
          const auto divided = train_on(place(), {task, staged(options, way), ranks, place().steps(10, 4)});
          for (const Outcome& outcome : divided) {
            SCOPED_TRACE(fmt::format("{}, {} ranks, {}", to_text(way), ranks, to_string(compute)));
            expect_same(outcome, plain[0]);
          }
        }
      }
}

TEST_P(ZeroTest, AccumulationDiffersInTheLastBitsOnly) {
  const Task task = wide_task();
  const EngineOptions options = engine_defaults(task, 2, 3);
  const auto plain = train_on(place(), {task, options, 2, place().steps(30, 4)});
  // Stage 1 adds a rank's micro-batches before the ranks', as stage 0 does; 2 and 3 the other way round.
  for (const Way& way : ways(place())) {
    SCOPED_TRACE(to_text(way));
    const auto divided = train_on(place(), {task, staged(options, way), 2, place().steps(30, 4)});
    if (way.stage < 2) expect_same(divided[1], plain[0]);
    const std::vector<double> losses = divided[0].losses(), expected = plain[0].losses();
    ASSERT_EQ(losses.size(), expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-6 * expected[i]) << i;
    expect_same(divided[1], divided[0]);
  }
}

TEST_P(ZeroTest, OptimizersOfWholeParametersHaveTheSameBitsToo) {
  using Kind = optim::OptimizerOptions::Kind;
  const Task task = wide_task();
  for (const Kind kind : {Kind::sgd, Kind::lion, Kind::adagrad, Kind::lamb, Kind::muon}) {
    if (place().emulated() && kind != Kind::lamb) continue;
    EngineOptions options = engine_defaults(task, 4);
    options.optimizer.kind = kind;
    options.optimizer.momentum = kind == Kind::sgd;
    options.optimizer.bias_correction = kind == Kind::lamb;
    if (kind == Kind::sgd) options.groups[0].momentum = 0.9;
    const auto plain = train_on(place(), {task, options, 3, 4});
    for (const Way& way : ways(place())) {
      SCOPED_TRACE(fmt::format("{}, optimizer {}", to_text(way), static_cast<int>(kind)));
      expect_same(train_on(place(), {task, staged(options, way), 3, 4})[2], plain[0]);
    }
  }
}

TEST_P(ZeroTest, EvaluationAndLogitsAreThoseOfStageZero) {
  const ScratchFolder folder;
  const Task task = testing::gpt_task(folder);
  const auto look = [&](Way way) {
    std::vector<double> losses(3);
    std::vector<std::vector<float>> logits(3);
    testing::on_ranks(place(), 3, [&](comm::Communicator& comm, const Place& where) {
      const auto model = task.model();
      const auto dataset = task.dataset();
      Engine engine(*model, comm, where, staged(engine_defaults(task, 2), way));
      testing::train_step(engine, *dataset, 0);
      const auto rank = static_cast<std::size_t>(comm.rank());
      losses[rank] = evaluate_all(engine, *dataset)->loss;
      data::HostBatch batch;
      dataset->train_batch(0, 2, batch);
      logits[rank] = engine.last_logits(batch);
      testing::train_step(engine, *dataset, 1);
      engine.drain();
    });
    EXPECT_EQ(losses[1], losses[0]);
    return std::pair(losses[0], logits);
  };
  if (place().emulated()) GTEST_SKIP() << "an evaluation of the whole text takes minutes under the emulator";
  const auto plain = look({});
  for (const Way& way : ways(place())) EXPECT_EQ(look(way), plain) << to_text(way);
}

/// What a checkpoint holds, taken as one is: every rank hands over what it owns.
using State = std::map<std::string, std::vector<float>>;

TEST_P(ZeroTest, StateMovesBetweenStagesAndNumbersOfRanks) {
  const Task task = wide_task();
  const std::int64_t steps = place().steps(4, 2);
  const auto train = [&](Way way, int ranks, DType compute, const State* from, StepState* at) {
    State state;
    std::mutex mutex;
    testing::on_ranks(place(), ranks, [&](comm::Communicator& comm, const Place& where) {
      const auto model = task.model();
      const auto dataset = task.dataset();
      EngineOptions options = staged(engine_defaults(task, 12 / ranks), way);
      options.compute = compute;
      Engine engine(*model, comm, where, options);
      std::int64_t first = 0;
      if (from != nullptr) {
        for (const auto& [name, values] : *from) testing::write_buffer(engine, name, values);
        engine.refresh();
        engine.write_state(*at);
        first = at->attempted;
      } else {
        for (std::int64_t step = 0; step < steps; ++step) testing::train_step(engine, *dataset, step);
      }
      (void)first;
      const StepState now = engine.read_state();
      for (const std::string& name : engine.buffer_names())
        for (const FlatRange& range : engine.own_ranges(name)) {
          std::vector<float> values(static_cast<std::size_t>(range.size()));
          engine.read_range(name, range.begin, range.size(), values.data());
          const std::scoped_lock lock(mutex);
          state[name].resize(static_cast<std::size_t>(engine.layout().size()), -1.0F);
          std::ranges::copy(values, state[name].begin() + range.begin);
        }
      // The parameters that the passes read follow what was written.
      for (const std::string& name : engine.buffer_names()) {
        const std::vector<float> whole = testing::read_buffer(engine, name);
        comm.barrier();
        const std::scoped_lock lock(mutex);
        EXPECT_EQ(whole, state[name]) << name << " gathered, " << to_text(way) << ", rank " << comm.rank();
      }
      const std::scoped_lock lock(mutex);
      if (from == nullptr) *at = now;
    });
    return state;
  };
  for (const DType compute : {DType::f32, DType::bf16}) {
    StepState at;
    const State saved = train({2}, 3, compute, nullptr, &at);
    for (const auto& [way, ranks] : {std::pair{Way{0}, 1},
                                     {Way{1}, 4},
                                     {Way{2}, 2},
                                     {Way{3}, 3},
                                     {Way{3}, 2},
                                     {Way{0, true}, 3},
                                     {Way{2, true}, 4}}) {
      if (place().emulated() && ranks == 4) continue;
      EXPECT_EQ(train(way, ranks, compute, &saved, &at), saved) << to_text(way) << ", " << ranks << " ranks";
    }
    if (place().emulated()) continue;
    const State shared = train({0, true}, 2, compute, nullptr, &at);
    EXPECT_EQ(train({3}, 3, compute, &shared, &at), shared);
  }
}

TEST_P(ZeroTest, ARangeOfAnotherRanksShardIsRefused) {
  testing::on_ranks(place(), 2, [&](comm::Communicator& comm, const Place& where) {
    const Task task = wide_task();
    const auto model = task.model();
    Engine engine(*model, comm, where, staged(engine_defaults(task, 2), {3}));
    std::vector<float> values(static_cast<std::size_t>(engine.layout().size()));
    EXPECT_FALSE(engine.replicated("master"));
    EXPECT_THROW(engine.read_range("master", 0, engine.layout().size(), values.data()), Error);
    EXPECT_THROW((void)engine.no_sync(), Error);
    comm.barrier();
  });
}

TEST_P(ZeroTest, AnOverflowOnOneRankSkipsTheStepOnAll) {
  const Task task = wide_task();
  for (const Way& way : ways(place())) {
    SCOPED_TRACE(to_text(way));
    EngineOptions options = staged(engine_defaults(task, 2), way);
    options.compute = DType::f16;
    options.scaler = testing::dynamic_scaler(40);  // too large for fp16 at first
    const auto outcomes = train_on(place(), {task, options, 3, place().steps(30, 6)});
    EXPECT_EQ(outcomes[0].skips().front(), 1);
    expect_same(outcomes[1], outcomes[0]);
    expect_same(outcomes[2], outcomes[0]);
    EXPECT_LT(outcomes[0].scales().back(), outcomes[0].scales().front());
  }
}

TEST(Zero, InvariantModeHasTheSameBitsInEveryStageOnAnyNumberOfRanksAndThreads) {
  const Task task = wide_task();
  constexpr std::int64_t leaves = 8;
  for (const DType compute : {DType::f32, DType::bf16}) {
    std::optional<Outcome> first;
    for (const Way& way : {Way{0}, Way{1}, Way{2}, Way{3}, Way{0, true}, Way{2, true}})
      for (const int ranks : {1, 2, 3, 4})
        for (const int threads : {1, 2, 3}) {
          if (threads != 1 && ranks != 3) continue;
          EngineOptions options = staged(engine_defaults(task, 2), way);
          options.compute = compute;
          options.leaves = leaves;
          const auto outcomes =
              testing::train_on_cpu({.task = task,
                                     .options = options,
                                     .ranks = ranks,
                                     .steps = 6,
                                     .threads = threads,
                                     .adjust = [&](EngineOptions& own, int rank) {
                                       own.grad_accum = static_cast<int>(sum_tree::share(leaves, rank, ranks).size());
                                     }});
          if (!first) first = outcomes[0];
          SCOPED_TRACE(fmt::format("{}, {} ranks, {} threads", to_text(way), ranks, threads));
          for (const Outcome& outcome : outcomes) expect_same(outcome, *first);
        }
  }
}

TEST(Zero, CapturedStepsAreThoseOfEveryStage) {
  const Task task = wide_task();
  for (const int stage : {1, 2, 3}) {
    EngineOptions options = staged(engine_defaults(task, 2, 2), {stage});
    const auto eager = testing::train_emulated({task, options, 2, 5}, 3);
    options.captured = true;
    const auto captured = testing::train_emulated({task, options, 2, 5}, 4);
    SCOPED_TRACE(stage);
    expect_same(captured[0], eager[0]);
    expect_same(captured[1], eager[0]);
  }
}

TEST(Zero, TakesLessMemoryFromStageToStage) {
  std::vector<std::size_t> bytes;
  for (const Way& way : {Way{0}, Way{1}, Way{2}, Way{3}, Way{0, true}, Way{1, true}, Way{2, true}}) {
    testing::on_ranks(testing::cpu_place, 4, [&](comm::Communicator& comm, const Place& where) {
      const Task task = wide_task();
      const auto model = nn::make_mlp({.features = 8, .hidden = {512, 512, 512, 512}, .classes = 4});
      Engine engine(*model, comm, where, staged(engine_defaults(task, 2), way));
      EXPECT_EQ(engine.one_copy(), way.one_copy);
      if (comm.rank() == 0) bytes.push_back(engine.bytes());
    });
  }
  for (std::size_t stage = 1; stage < 4; ++stage) EXPECT_LT(bytes[stage], bytes[stage - 1]);
  EXPECT_LT(bytes[4], bytes[1]) << "a quarter of the parameters is less than all of them";
  EXPECT_EQ(bytes[5], bytes[4]) << "with one copy stage 0 is stage 1";
  EXPECT_LT(bytes[6], bytes[2]);
}

TEST(Zero, WithOneCopyWhatOneRankWritesOfItsPartAllRead) {
  for (const DType compute : {DType::f32, DType::bf16})
    testing::on_ranks(testing::cpu_place, 3, [&](comm::Communicator& comm, const Place& where) {
      const Task task = wide_task();
      const auto model = task.model();
      EngineOptions options = staged(engine_defaults(task, 2), {0, true});
      options.compute = compute;
      Engine engine(*model, comm, where, options);
      EXPECT_FALSE(engine.replicated("master"));
      for (const FlatRange& own : engine.own_ranges("master")) {
        const std::vector<float> mine(static_cast<std::size_t>(own.size()), static_cast<float>(comm.rank() + 1));
        engine.write_range("master", own.begin, own.size(), mine.data());
      }
      engine.refresh();
      const std::vector<float> all = testing::read_buffer(engine, "master");
      for (const float value : {1.0F, 2.0F, 3.0F}) EXPECT_THAT(all, ::testing::Contains(value)) << comm.rank();
      comm.barrier();
    });
}

TEST(Zero, OneCopyIsNotForDevicesNorForOneRank) {
  testing::on_ranks(testing::emulated_place, 2, [&](comm::Communicator& comm, const Place& where) {
    const Task task = wide_task();
    const auto model = task.model();
    Engine engine(*model, comm, where, staged(engine_defaults(task, 2), {0, true}));
    EXPECT_FALSE(engine.one_copy());
    EXPECT_EQ(engine.zero_stage(), 0);
  });
  const auto alone = comm::make_single();
  const Task task = wide_task();
  const auto model = task.model();
  const auto device = make_cpu_device();
  Engine engine(*model, *alone, {.device = device.get(), .kernels = &kernels::cpu_table()},
                staged(engine_defaults(task, 2), {0, true}));
  EXPECT_FALSE(engine.one_copy());
}

}  // namespace
}  // namespace lockstep::engine
