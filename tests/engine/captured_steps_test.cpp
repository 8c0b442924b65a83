#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "engine/engine.hpp"
#include "engine/step_graphs.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::TrainingRun;

/// `dataset` with some targets left out, of each micro-batch another number.
class Holes final : public data::Dataset {
 public:
  explicit Holes(std::unique_ptr<data::Dataset> dataset) : dataset_(std::move(dataset)) {}
  [[nodiscard]] std::string describe() const override { return dataset_->describe(); }
  [[nodiscard]] std::uint64_t fingerprint() const override { return dataset_->fingerprint(); }
  [[nodiscard]] int classes() const override { return dataset_->classes(); }
  [[nodiscard]] int features() const override { return dataset_->features(); }
  [[nodiscard]] std::int64_t train_samples() const override { return dataset_->train_samples(); }
  [[nodiscard]] std::int64_t eval_samples() const override { return dataset_->eval_samples(); }
  void train_batch(std::int64_t position, std::int64_t count, data::HostBatch& out) const override {
    dataset_->train_batch(position, count, out);
    const auto holes = static_cast<std::size_t>(position / count) % out.targets.size();
    std::fill_n(out.targets.begin(), holes, -1);
    out.target_count = static_cast<double>(out.targets.size() - holes);
  }
  void eval_batch(std::int64_t first, std::int64_t count, data::HostBatch& out) const override {
    dataset_->eval_batch(first, count, out);
  }

 private:
  std::unique_ptr<data::Dataset> dataset_;
};

Task with_holes(Task task) {
  task.dataset = [whole = task.dataset] { return std::make_unique<Holes>(whole()); };
  return task;
}

/// What graphs there were at the end, by rank.
struct Captured {
  std::vector<Outcome> outcomes;
  std::vector<std::size_t> graphs;
  std::vector<std::int64_t> replays;
};

constexpr std::int64_t steps = 20;
constexpr std::int64_t stop_after = 10;

/// fp16 from a scale that overflows, a warm-up, targets that are left out, and after step 10 the last rank's wish to
/// stop: everything that differs from one step to the next.
Captured train(const Task& task, int ranks, int grad_accum, bool captured, std::uint64_t seed,
               const optim::OptimizerOptions& optimizer = {}) {
  TrainingRun run{with_holes(task), testing::engine_defaults(task, 4, grad_accum, 1e-2), ranks, steps};
  run.options.compute = DType::f16;
  run.options.scaler = testing::dynamic_scaler(26, 4);
  run.options.captured = captured;
  run.options.optimizer = optimizer;
  const auto count = static_cast<std::size_t>(ranks);
  Captured result{
      .outcomes = {}, .graphs = std::vector<std::size_t>(count), .replays = std::vector<std::int64_t>(count)};
  run.after_step = [&](Engine& engine, std::int64_t step) {
    const auto rank = static_cast<std::size_t>(engine.comm().rank());
    if (step == stop_after && engine.comm().rank() == ranks - 1) engine.request_stop();
    result.graphs[rank] = engine.graphs().graphs();
    result.replays[rank] = engine.graphs().replays();
  };
  if (ranks > 1) {
    result.outcomes = testing::train_emulated(run, seed);
    return result;
  }
  const auto device = make_emulated_device(seed);
  const auto comm = comm::make_single(device.get());
  result.outcomes = {
      testing::train_rank(run, *comm, {.device = device.get(), .kernels = &kernels::emulated_table(), .threads = 1})};
  return result;
}

void expect_equal(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(testing::count_differing(a.losses(), b.losses()), 0U);
  EXPECT_EQ(testing::count_differing(a.column(&StepResult::grad_norm), b.column(&StepResult::grad_norm)), 0U);
  EXPECT_EQ(a.scales(), b.scales());
  EXPECT_EQ(a.skips(), b.skips());
  EXPECT_EQ(testing::count_differing(a.master, b.master), 0U);
  ASSERT_EQ(a.results.size(), b.results.size());
  for (std::size_t i = 0; i < a.results.size(); ++i) {
    EXPECT_EQ(a.results[i].stop, b.results[i].stop) << "step " << i;
    EXPECT_EQ(a.results[i].applied_values, b.results[i].applied_values) << "step " << i;
  }
}

/// The captured run does what the eager one does, to the bit, and steps differ in all that they can differ in.
void replays_equal_eager_steps(const Task& task, int ranks, int grad_accum, std::size_t graphs) {
  const Captured eager = train(task, ranks, grad_accum, false, 1);
  const Captured captured = train(task, ranks, grad_accum, true, 2);

  const Outcome& outcome = captured.outcomes.front();
  for (const Outcome& other : captured.outcomes) expect_equal(other, eager.outcomes.front());
  const std::vector<int> skips = outcome.skips();
  EXPECT_GT(std::count(skips.begin() + 2, skips.end(), 1), 0) << "a replayed step must overflow";
  EXPECT_GT(std::count(skips.begin() + 2, skips.end(), 0), 5);
  EXPECT_NE(outcome.results[2].applied_values, outcome.results.back().applied_values) << "the rate must move";
  EXPECT_EQ(outcome.results[stop_after].stop, 0);
  EXPECT_EQ(outcome.results[stop_after + 1].stop, Engine::wish_to_stop);
  // Of each kind that there is one runs as it is and one is captured, then all are replayed.
  const std::int64_t kinds = std::min(grad_accum, 3);
  for (const std::int64_t replays : captured.replays) EXPECT_EQ(replays, steps * grad_accum - 2 * kinds);
  for (const std::size_t each : captured.graphs) EXPECT_EQ(each, graphs);
  for (const std::size_t each : eager.graphs) EXPECT_EQ(each, 0U);
}

TEST(CapturedSteps, OfOneRankAreAGraphAKindAndEqualEagerOnes) {
  const ScratchFolder folder;
  replays_equal_eager_steps(testing::mlp_task(), 1, 1, 1);
  replays_equal_eager_steps(testing::mlp_task(), 1, 4, 3);
  replays_equal_eager_steps(testing::gpt_task(folder), 1, 2, 2);
}

TEST(CapturedSteps, OfTwoRanksAreCutAtTheirCollectivesAndEqualEagerOnes) {
  // A last micro-step is cut where the record is broadcast, where each of three buckets goes out (the last of them with
  // the end of backward, where all are waited for), and where reports are gathered. In front of the first cut lies only
  // what clears the sums, so nothing where the micro-step is not a step's first too.
  const Task task = testing::mlp_task();
  replays_equal_eager_steps(task, 2, 1, 6);
  replays_equal_eager_steps(task, 2, 3, 2 + 5);
  const ScratchFolder folder;
  const Task gpt = testing::gpt_task(folder);
  for (const Outcome& captured : train(gpt, 2, 2, true, 3).outcomes)
    expect_equal(captured, train(gpt, 2, 2, false, 4).outcomes.front());
}

TEST(CapturedSteps, OfOptimizersWithScratchEqualEagerOnes) {
  using Kind = optim::OptimizerOptions::Kind;
  const ScratchFolder folder;
  const Task gpt = testing::gpt_task(folder);
  for (const Kind kind : {Kind::lamb, Kind::muon}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const optim::OptimizerOptions optimizer = {.kind = kind};
    const Outcome eager = train(gpt, 2, 1, false, 5, optimizer).outcomes.front();
    for (const Outcome& captured : train(gpt, 2, 1, true, 6, optimizer).outcomes) expect_equal(captured, eager);
    EXPECT_LT(eager.losses().back(), eager.losses().front());
  }
}

/// An engine of one rank on the emulated device, captured, with two micro-batches a step.
struct Single {
  Single() {
    options.captured = true;
    options.max_in_flight = 3;
    model = task.model();
    engine.emplace(*model, *comm, Place{.device = device.get(), .kernels = &kernels::emulated_table(), .threads = 1},
                   options);
  }
  Task task = testing::mlp_task();
  EngineOptions options = testing::engine_defaults(task, 4, 2);
  std::unique_ptr<data::Dataset> dataset = task.dataset();
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<DeviceApi> device = make_emulated_device(5);
  std::unique_ptr<comm::Communicator> comm = comm::make_single(device.get());
  std::optional<Engine> engine;
};

TEST(CapturedSteps, LeaveEvaluationBetweenStepsAlone) {
  Single plain, disturbed;
  data::HostBatch batch;
  disturbed.dataset->eval_batch(0, 4, batch);
  for (std::int64_t step = 0; step < 6; ++step) {
    testing::train_step(*plain.engine, *plain.dataset, step);
    testing::train_step(*disturbed.engine, *disturbed.dataset, step);
    EXPECT_GT(disturbed.engine->evaluate(batch).loss.loss, 0.0);
  }
  EXPECT_EQ(testing::read_buffer(*disturbed.engine, "master"), testing::read_buffer(*plain.engine, "master"));
}

TEST(CapturedSteps, GoOnFromAStateThatIsWrittenInBetween) {
  Single run;
  for (std::int64_t step = 0; step < 5; ++step) testing::train_step(*run.engine, *run.dataset, step);
  const std::vector<float> master = testing::read_buffer(*run.engine, "master");
  const std::vector<float> m = testing::read_buffer(*run.engine, "exp_avg");
  const std::vector<float> v = testing::read_buffer(*run.engine, "exp_avg_sq");
  const StepState state = run.engine->read_state();
  testing::train_step(*run.engine, *run.dataset, 5);
  const std::vector<float> first = testing::read_buffer(*run.engine, "master");

  testing::write_buffer(*run.engine, "master", master);
  testing::write_buffer(*run.engine, "exp_avg", m);
  testing::write_buffer(*run.engine, "exp_avg_sq", v);
  run.engine->write_state(state);
  testing::train_step(*run.engine, *run.dataset, 5);

  EXPECT_NE(first, master);
  EXPECT_EQ(testing::read_buffer(*run.engine, "master"), first);
}

TEST(CapturedSteps, RefuseAnEvaluationWhileTheLastPassesAreDue) {
  Single run;
  data::HostBatch batch;
  run.dataset->train_batch(0, 4, batch);
  for (int i = 0; i < 2; ++i) {
    run.engine->forward(batch);
    run.engine->backward();
  }
  const std::string text = testing::error_text(ErrorKind::internal, [&] { (void)run.engine->evaluate(batch); });
  EXPECT_NE(text.find("evaluate between the last backward and step"), std::string::npos) << text;
  run.engine->step();
  EXPECT_GT(run.engine->evaluate(batch).loss.loss, 0.0);
}

TEST(CapturedSteps, NeedADeviceThatCanCapture) {
  const Task task = testing::mlp_task();
  EngineOptions options = testing::engine_defaults(task, 4);
  options.captured = true;
  const auto model = task.model();
  const auto device = make_cpu_device();
  const auto comm = comm::make_single();
  const std::string text = testing::error_text(ErrorKind::internal, [&] {
    const Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                        options);
  });
  EXPECT_NE(text.find("cpu cannot"), std::string::npos) << text;
}

TEST(StepGraphs, KeepNothingOfACaptureThatThrows) {
  const auto device = make_emulated_device(1);
  const StreamRef stream = device->make_stream();
  const Arena memory(*device, sizeof(int));
  {
    StepGraphs graphs(*device, stream, true, false);
    int calls = 0;
    const auto work = [&](bool fail_now) {
      device->fill_zero(memory.data(), sizeof(int), stream);
      graphs.outside([&] { ++calls; });
      device->fill_zero(memory.data(), sizeof(int), stream);
      require(!fail_now, "on purpose");
    };
    graphs.run(MicroStep::last, [&] { work(false); });
    EXPECT_THROW(graphs.run(MicroStep::last, [&] { work(true); }), Error);
    EXPECT_EQ(graphs.graphs(), 0U);
    EXPECT_FALSE(graphs.capturing());
    graphs.run(MicroStep::last, [&] { work(false); });
    EXPECT_EQ(graphs.graphs(), 2U);
    graphs.run(MicroStep::last, [&] { ADD_FAILURE() << "a replay runs no work"; });
    EXPECT_EQ(calls, 4);
    EXPECT_EQ(graphs.replays(), 1);
    device->synchronize(stream);
  }
  device->destroy(stream);
}

/// A library may refuse to be captured; what has not been launched yet can still be enqueued as it is.
TEST(StepGraphs, EnqueueAnewWhereACaptureIsRefusedBeforeAnythingWasLaunched) {
  const auto device = make_emulated_device(1);
  const StreamRef stream = device->make_stream();
  const Arena memory(*device, sizeof(int));
  {
    StepGraphs graphs(*device, stream, true, false);
    int eager = 0;
    const auto work = [&] {
      device->fill_zero(memory.data(), sizeof(int), stream);
      if (graphs.capturing()) fail(ErrorKind::environment, "this product cannot be captured");
      ++eager;
    };
    for (int i = 0; i < 3; ++i) graphs.run(MicroStep::last, work);
    EXPECT_EQ(eager, 3);
    EXPECT_EQ(graphs.graphs(), 0U);
    EXPECT_EQ(graphs.why(), "this product cannot be captured");
    EXPECT_FALSE(graphs.enabled());

    StepGraphs late(*device, stream, true, false);
    const auto refused_late = [&] {
      late.outside([] {});
      if (late.capturing()) fail(ErrorKind::environment, "too late");
    };
    late.run(MicroStep::last, refused_late);
    EXPECT_THROW(late.run(MicroStep::last, refused_late), Error) << "other ranks have seen the call";
    EXPECT_TRUE(late.enabled());
    device->synchronize(stream);
  }
  device->destroy(stream);
}

}  // namespace
}  // namespace lockstep::engine
