#include "engine/engine.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>

#include "engine/evaluate.hpp"
#include "kernels/decide/decide_rule.hpp"
#include "run/drill.hpp"
#include "tests/support/numbers.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::engine_defaults;
using testing::error_text;
using testing::gpt_task;
using testing::mlp_task;
using testing::Outcome;
using testing::ScratchFolder;
using testing::Task;
using testing::train_on;
using testing::train_on_cpu;
using testing::TrainingRun;

void expect_close(const std::vector<double>& a, const std::vector<double>& b, double relative) {
  ASSERT_EQ(a.size(), b.size());
  // Another order of fp32 sums; the difference grows with the steps, so each test says how far.
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], relative * std::abs(b[i])) << "step " << i;
}

/// What every rank must have in common.
void expect_equal(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(testing::count_differing(a.losses(), b.losses()), 0U);
  EXPECT_EQ(a.scales(), b.scales());
  EXPECT_EQ(a.skips(), b.skips());
  EXPECT_EQ(testing::count_differing(a.column(&StepResult::grad_norm), b.column(&StepResult::grad_norm)), 0U);
  EXPECT_EQ(testing::count_differing(a.master, b.master), 0U);
  EXPECT_EQ(a.state.applied, b.state.applied);
  EXPECT_EQ(a.state.attempted, b.state.attempted);
}

/// An engine of one rank, with what it needs.
struct Single {
  explicit Single(const testing::TestPlace& where, const Task& task, const EngineOptions& options)
      : dataset(task.dataset()),
        model(task.model()),
        device(where.make_device()),
        comm(comm::make_single(device.get())),
        engine(*model, *comm, {.device = device.get(), .kernels = &where.kernels(), .threads = 1}, options) {}
  void step() { testing::train_step(engine, *dataset, steps++); }
  /// Of all steps, those in flight too.
  std::vector<FinishedStep> results() {
    engine.drain();
    return engine.results();
  }
  data::HostBatch batch() const {
    data::HostBatch result;
    dataset->train_batch(0, engine.options().micro_batch.batch, result);
    return result;
  }

  std::unique_ptr<data::Dataset> dataset;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<DeviceApi> device;
  std::unique_ptr<comm::Communicator> comm;
  Engine engine;
  std::int64_t steps = 0;
};

class EngineTest : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Engines, EngineTest, testing::all_places(), testing::place_name);

/// Where an emulator would take long the MLP alone: TrainsAGpt is for it too.
std::vector<Task> tasks(const testing::TestPlace& where, const ScratchFolder& folder) {
  if (where.emulated()) return {mlp_task()};
  return {mlp_task(), gpt_task(folder)};
}

/// Of devices that put work off.
class EngineDeviceTest : public testing::PlaceTest {};
INSTANTIATE_TEST_SUITE_P(Engines, EngineDeviceTest, testing::devices(), testing::place_name);

// Data parallelism

void ranks_agree_with_one(const testing::TestPlace& where, const Task& task) {
  const std::int64_t steps = where.steps(50, 12);
  const auto losses = [&](std::int64_t micro, int ranks) {
    return train_on(where, {task, engine_defaults(task, micro), ranks, steps}).front().losses();
  };
  const std::vector<double> two = losses(6, 2), three = losses(4, 3), one = losses(12, 1);
  ASSERT_EQ(one.size(), static_cast<std::size_t>(steps));
  EXPECT_LT(one.back(), one.front());
  expect_close(two, one, 1e-5);
  expect_close(three, one, 1e-5);
}

TEST_P(EngineTest, RanksAgreeWithOneRankMlp) { ranks_agree_with_one(place(), mlp_task()); }

TEST_P(EngineTest, RanksAgreeWithOneRankGpt) {
  const ScratchFolder folder;
  ranks_agree_with_one(place(), gpt_task(folder));
}

TEST_P(EngineTest, AllRanksHoldTheSameBits) {
  const ScratchFolder folder;
  const Task task = gpt_task(folder);
  const auto outcomes = train_on(place(), {task, engine_defaults(task, 2), 3, 10});
  expect_equal(outcomes[1], outcomes[0]);
  expect_equal(outcomes[2], outcomes[0]);
  const auto again = train_on(place(), {task, engine_defaults(task, 2), 3, 10});
  expect_equal(again[0], outcomes[0]);
}

TEST_P(EngineTest, AccumulationIsALargerBatch) {
  const ScratchFolder folder;
  for (const Task& task : {mlp_task(), gpt_task(folder)}) {
    const std::int64_t steps = place().steps(30, 8);
    const auto accumulated = train_on(place(), {task, engine_defaults(task, 4, 2), 1, steps}).front().losses();
    const auto whole = train_on(place(), {task, engine_defaults(task, 8, 1), 1, steps}).front().losses();
    expect_close(accumulated, whole, 1e-5);
    const auto shared = train_on(place(), {task, engine_defaults(task, 2, 2), 2, steps}).front().losses();
    expect_close(shared, whole, 1e-5);
  }
}

TEST_P(EngineTest, NoSyncChangesNothingButTheTime) {
  const Task task = mlp_task();
  const auto plain = train_on(place(), {task, engine_defaults(task, 4), 2, 5});
  std::vector<Outcome> held(2);
  testing::on_ranks(place(), 2, [&](comm::Communicator& comm, const Place& where) {
    const auto dataset = task.dataset();
    const auto model = task.model();
    Engine engine(*model, comm, where, engine_defaults(task, 4));
    const Engine::NoSync guard = engine.no_sync();
    for (int step = 0; step < 5; ++step) testing::train_step(engine, *dataset, step);
    engine.drain();
    Outcome& outcome = held[static_cast<std::size_t>(comm.rank())];
    outcome = {engine.results(), testing::read_buffer(engine, "master"), engine.read_state()};
  });
  expect_equal(held[0], plain[0]);
  expect_equal(held[1], plain[1]);
}

TEST_P(EngineTest, EvaluationHasTheSameBitsOnAnyNumberOfRanks) {
  const ScratchFolder folder;
  for (const Task& task : {mlp_task(), gpt_task(folder)}) {
    std::vector<double> losses;
    for (const int ranks : {1, 2, 3}) {
      std::vector<double> seen(static_cast<std::size_t>(ranks));
      TrainingRun run{task, engine_defaults(task, 5), ranks, 0};
      run.prepare = [&](Engine& engine) {
        const auto dataset = task.dataset();
        EXPECT_NE(dataset->eval_samples() % 5, 0) << "the last block must be a partial one";
        seen[static_cast<std::size_t>(engine.comm().rank())] = evaluate_all(engine, *dataset).value().loss;
      };
      (void)train_on(place(), run);
      losses.insert(losses.end(), seen.begin(), seen.end());
    }
    EXPECT_GT(losses.front(), 0.5);
    for (const double loss : losses) EXPECT_EQ(testing::bits_of(loss), testing::bits_of(losses.front()));
  }
}

TEST(Engine, WithoutValidationSamplesThereIsNoLoss) {
  const Task task = mlp_task();
  TrainingRun run{task, engine_defaults(task, 5), 2, 0};
  run.prepare = [&](Engine& engine) {
    const auto dataset = data::make_clusters({.classes = 4, .features = 8, .samples = 64, .validation_fraction = 0});
    EXPECT_EQ(evaluate_all(engine, *dataset), std::nullopt);
  };
  (void)train_on_cpu(run);
}

/// Takes its time over each validation batch.
class SlowDataset final : public data::Dataset {
 public:
  SlowDataset(std::unique_ptr<data::Dataset> dataset, std::chrono::milliseconds delay)
      : dataset_(std::move(dataset)), delay_(delay) {}
  [[nodiscard]] std::string describe() const override { return dataset_->describe(); }
  [[nodiscard]] std::uint64_t fingerprint() const override { return dataset_->fingerprint(); }
  [[nodiscard]] int classes() const override { return dataset_->classes(); }
  [[nodiscard]] std::int64_t train_samples() const override { return dataset_->train_samples(); }
  [[nodiscard]] std::int64_t eval_samples() const override { return dataset_->eval_samples(); }
  void train_batch(std::int64_t position, std::int64_t count, data::HostBatch& out) const override {
    dataset_->train_batch(position, count, out);
  }
  void eval_batch(std::int64_t first, std::int64_t count, data::HostBatch& out) const override {
    std::this_thread::sleep_for(delay_);
    dataset_->eval_batch(first, count, out);
  }

 private:
  std::unique_ptr<data::Dataset> dataset_;
  std::chrono::milliseconds delay_;
};

TEST(Engine, TheDeadlineHoldsForABlockOfAnEvaluationNotForAllOfIt) {
  const Task task = mlp_task();
  const auto evaluate = [&](comm::Communicator& comm) {
    const auto model = task.model();
    const auto device = make_cpu_device();
    Engine engine(*model, comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                  engine_defaults(task, 8));
    // 51 validation samples are 7 blocks, 4 of them rank 0's: 1.6 s.
    const SlowDataset dataset(task.dataset(), std::chrono::milliseconds(comm.rank() == 0 ? 400 : 0));
    EXPECT_EQ((dataset.eval_samples() + 7) / 8, 7);
    EXPECT_GT(evaluate_all(engine, dataset).value().loss, 0.5);
  };

  EXPECT_NO_THROW(comm::run_ranks(2, evaluate, {.timeout = comm::Seconds(1.2)}));
}

// Schedules

TEST_P(EngineTest, TheUpdateUsesTheSchedule) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 8);
  options.groups = {testing::sgd_group(0.1)};
  options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false};
  options.gradient_clipping = 0;
  options.schedule = sched::make_schedule("StepDecay", {{"step_size", 1}, {"gamma", 0.5}}, options.groups);
  Single run(place(), task, options);
  std::vector<double> lengths;
  for (int step = 0; step < 4; ++step) {
    const double lr = run.engine.lr().front();
    EXPECT_DOUBLE_EQ(lr, 0.1 * std::pow(0.5, step));
    const std::vector<float> before = testing::read_buffer(run.engine, "master");
    run.step();
    const std::vector<float> after = testing::read_buffer(run.engine, "master");
    double length2 = 0;
    for (std::size_t i = 0; i < after.size(); ++i) length2 += std::pow(static_cast<double>(after[i]) - before[i], 2);
    const StepResult result = run.results().front();
    // Differences of parameters of about 0.1, rounded to 2^-27 of them, against steps of 1e-3 and less.
    EXPECT_NEAR(std::sqrt(length2), lr * result.grad_norm, 1e-4 * lr * result.grad_norm);
  }
}

TEST_P(EngineTest, ATamperedScheduleStopsEveryRank) {
  const Task task = mlp_task();
  for (const int tampered : {0, 1, 2}) {
    TrainingRun run{task, engine_defaults(task, 4), 3, 10};
    run.options.schedule = sched::make_constant(run.options.groups);
    run.adjust = [tampered](EngineOptions& options, int rank) {
      if (rank == tampered) options.schedule = run::off_by_one_bit(options.schedule, 3);
    };
    std::atomic<int> unwound{0};
    struct Count {
      std::atomic<int>* counter;
      ~Count() { ++*counter; }
    };
    std::atomic<int> finished{0};
    const std::string text = error_text(ErrorKind::desync, [&] {
      testing::on_ranks(place(), 3, [&](comm::Communicator& comm, const Place& where) {
        const Count count{&unwound};
        (void)testing::train_rank(run, comm, where);
        ++finished;
      });
    });
    EXPECT_EQ(unwound, 3);
    EXPECT_EQ(finished, 0) << "a rank got through all steps";
    EXPECT_NE(text.find("step 4"), std::string::npos) << text;
    const char* lr = tampered == 0 ? "group 0 lr: rank 0 broadcast 0.0030000000000000005, rank "
                                   : "group 0 lr: rank 0 broadcast 0.003, rank ";
    EXPECT_NE(text.find(lr), std::string::npos) << text;
    EXPECT_NE(text.find(tampered == 0 ? " evaluated 0.003\n" : " evaluated 0.0030000000000000005\n"), std::string::npos)
        << text;
  }
}

TEST(Engine, AManagedScheduleRefusesSetLr) {
  Single run(testing::cpu_place, mlp_task(), engine_defaults(mlp_task(), 4));
  const std::string text = error_text(ErrorKind::internal, [&] { run.engine.set_lr({0.5}); });
  EXPECT_NE(text.find("managed"), std::string::npos) << text;
  const std::string page = testing::text_of(source_dir() + "/examples/warmup_tutorial/README.md");
  const std::string sentence = text.substr(0, text.find(" ("));  // without the place in the source
  EXPECT_NE(page.find("\n" + sentence + "\n"), std::string::npos) << "examples/warmup_tutorial/README.md: " << sentence;
}

TEST_P(EngineTest, AUserManagedLrIsFollowed) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.schedule = nullptr;
  options.groups = {testing::adam_group(0.0)};
  Single run(place(), task, options);
  const std::vector<float> initial = testing::read_buffer(run.engine, "master");
  run.step();
  EXPECT_EQ(testing::read_buffer(run.engine, "master"), initial) << "lr is 0";
  run.engine.set_lr({0.01});
  EXPECT_EQ(run.engine.lr(), std::vector<double>{0.01});
  run.step();
  EXPECT_NE(testing::read_buffer(run.engine, "master"), initial);
  error_text(ErrorKind::internal, [&] { run.engine.set_lr({0.01, 0.02}); });

  // Different values on two ranks are a desync, with what each caller passed.
  TrainingRun two{task, options, 2, 3};
  two.after_step = [](Engine& engine, std::int64_t) { engine.set_lr({engine.comm().rank() == 0 ? 0.25 : 0.125}); };
  const std::string text = error_text(ErrorKind::desync, [&] { (void)train_on(place(), two); });
  EXPECT_NE(text.find("broadcast 0.25, rank 1 evaluated 0.125"), std::string::npos) << text;
}

TEST(Engine, SgdsMomentumIsCycledWhereTheScheduleIsAskedTo) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.groups = {{{.lr = 0.1, .momentum = 0.9}, false}};
  options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false, .momentum = true};
  const config::Params cycle = {{"cycle_min_lr", 0.01}, {"cycle_max_lr", 0.1}, {"cycle_first_step_size", 3}};
  config::Params asked = cycle;
  asked.set("cycle_sgd_momentum", true);
  const auto train = [&](const config::Params& params) {
    options.schedule = sched::make_schedule("OneCycle", params, options.groups);
    return train_on_cpu({task, options, 2, 8}).front();
  };

  const Outcome cycled = train(asked), kept = train(cycle);

  for (const FinishedStep& step : kept.results) EXPECT_EQ(step.applied_values.at(0).momentum, 0.9);
  std::vector<StepValues> values(1);
  const auto schedule = sched::make_schedule("OneCycle", asked, options.groups);
  for (std::size_t i = 0; i < cycled.results.size(); ++i) {
    schedule->values_at(static_cast<std::int64_t>(i), values);
    EXPECT_EQ(cycled.results[i].applied_values.at(0).momentum, values[0].momentum) << i;
  }
  EXPECT_NE(cycled.losses(), kept.losses()) << "the kernel must have used it";
  EXPECT_EQ(cycled.losses()[1], kept.losses()[1]) << "there was nothing to carry on yet";
}

TEST(Engine, AScheduleThatReadsAMetricActsFromTheNextStepOn) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4, 1, 0.5);
  options.schedule = sched::make_schedule("ReduceLROnPlateau", {{"patience", 0}, {"factor", 0.5}}, options.groups);
  TrainingRun two{task, options, 2, 8};
  two.after_step = [](Engine& engine, std::int64_t step) {
    if (step % 2 == 1) engine.observe(1.0);
  };

  std::vector<Outcome> outcomes = train_on_cpu(two);
  for (Outcome& emulated : testing::train_emulated(two, 3)) outcomes.push_back(std::move(emulated));
  for (const Outcome& outcome : outcomes) {
    std::vector<double> used;
    for (const FinishedStep& step : outcome.results) used.push_back(step.applied_values.at(0).lr);
    EXPECT_EQ(used, (std::vector<double>{0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125}));
  }
  // Every rank judges the metric that its own caller passed.
  two.after_step = [](Engine& engine, std::int64_t step) {
    engine.observe(static_cast<double>(engine.comm().rank() == 1 ? -step : step));
  };
  const std::string text = error_text(ErrorKind::desync, [&] { (void)train_on_cpu(two); });
  EXPECT_NE(text.find("broadcast 0.25, rank 1 evaluated 0.5"), std::string::npos) << text;
  EXPECT_NE(text.find("the same metric"), std::string::npos) << text;
}

TEST(Engine, AMetricsStateGoesOnInAnotherEngine) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.schedule = sched::make_schedule("ReduceLROnPlateau", {{"patience", 1}, {"factor", 0.5}}, options.groups);
  Single first(testing::cpu_place, task, options), second(testing::cpu_place, task, options),
      without(testing::cpu_place, task, engine_defaults(task, 4));

  for (int i = 0; i < 3; ++i) first.engine.observe(1.0);
  second.engine.set_metric_state(first.engine.metric_state().value());

  EXPECT_EQ(second.engine.lr(), std::vector<double>{1.5e-3});
  for (int i = 0; i < 2; ++i) second.engine.observe(1.0);
  EXPECT_EQ(second.engine.lr(), std::vector<double>{0.75e-3});
  EXPECT_FALSE(without.engine.metric_state().has_value());
  error_text(ErrorKind::internal, [&] { without.engine.observe(1.0); });
  error_text(ErrorKind::internal, [&] { second.engine.set_metric_state({}); });
}

TEST_P(EngineTest, WrongCallOrdersAreRefused) {
  const Task task = mlp_task();
  Single run(place(), task, engine_defaults(task, 4, 2));
  Engine& engine = run.engine;
  const data::HostBatch batch = run.batch();
  const auto refused = [](const auto& call, const char* word) {
    const std::string text = error_text(ErrorKind::internal, call);
    EXPECT_NE(text.find(word), std::string::npos) << text;
  };
  refused([&] { engine.backward(); }, "without forward");
  refused([&] { engine.step(); }, "micro-batches");
  engine.forward(batch);
  refused([&] { engine.forward(batch); }, "twice");
  refused([&] { (void)engine.evaluate(batch); }, "between forward and backward");
  refused([&] { (void)engine.last_logits(batch); }, "between forward and backward");
  engine.backward();
  refused([&] { engine.step(); }, "micro-batches");
  engine.forward(batch);
  engine.backward();
  refused([&] { engine.forward(batch); }, "step() is due");
  engine.step();
  data::HostBatch other;
  run.dataset->train_batch(0, 3, other);
  refused([&] { engine.forward(other); }, "shape");
  refused([&] { (void)testing::read_buffer(engine, "velocity"); }, "unknown buffer");
  float one = 1.0F;
  refused([&] { engine.write_range("master", engine.layout().size(), 1, &one); }, "outside the flat space");
  refused([&] { engine.read_range("master", -1, 1, &one); }, "outside the flat space");
  // After all these refusals it still trains.
  for (int i = 0; i < 2; ++i) {
    engine.forward(batch);
    engine.backward();
  }
  engine.step();
  EXPECT_EQ(run.results().back().applied, 2);
}

// Numbers

TEST_P(EngineTest, ClippingBoundsTheUpdateAndZeroTurnsItOff) {
  const Task task = mlp_task();
  const auto run_with = [&](double clip) {
    EngineOptions options = engine_defaults(task, 16);
    options.groups = {testing::sgd_group(1.0)};
    options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false};
    options.gradient_clipping = clip;
    options.schedule = nullptr;
    Single run(place(), task, options);
    const std::vector<float> before = testing::read_buffer(run.engine, "master");
    run.step();
    const std::vector<float> after = testing::read_buffer(run.engine, "master");
    double length2 = 0;
    for (std::size_t i = 0; i < after.size(); ++i) length2 += std::pow(static_cast<double>(after[i]) - before[i], 2);
    return std::pair{std::sqrt(length2), run.results().front().grad_norm};
  };
  const auto [free, norm] = run_with(0);
  EXPECT_GT(norm, 0.0);
  // As above; a step of the gradient itself loses less to rounding than one of a tenth of it.
  EXPECT_NEAR(free, norm, 1e-5 * norm);
  const auto [clipped, same_norm] = run_with(norm / 10);
  EXPECT_EQ(same_norm, norm) << "the norm is reported before clipping";
  EXPECT_NEAR(clipped, norm / 10, 1e-4 * norm);
  EXPECT_LE(clipped, norm / 10);
  const auto [wide, unused] = run_with(norm * 10);
  EXPECT_EQ(wide, free);
}

TEST_P(EngineTest, ParameterGroupsHaveTheirOwnLrAndDecay) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  const auto model = task.model();
  // Group 0: lr 0. Group 1: biases without decay. Group 2: the last layer, decay so strong that it shows.
  for (const nn::ParameterSpec& spec : model->parameters())
    options.group_of.push_back(spec.name.ends_with("bias") ? 1 : spec.name.find(".2.") != std::string::npos ? 2 : 0);
  const auto sgd = [](double lr, double weight_decay) {
    sched::GroupInitial group = testing::sgd_group(lr);
    group.weight_decay = weight_decay;
    return group;
  };
  options.groups = {sgd(0.0, 0.3), sgd(1e-3, 0.0), sgd(0.5, 1.0)};
  options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false};
  options.gradient_clipping = 1e-9;  // leaves the decay alone to be seen
  options.schedule = nullptr;
  Single run(place(), task, options);
  // Biases start at zero; ones show that they do not decay.
  std::vector<float> before = testing::read_buffer(run.engine, "master");
  for (const FlatLayout::Slice& slice : run.engine.layout().slices())
    if (slice.group == 1)
      for (std::int64_t i = 0; i < slice.elements; ++i) before[static_cast<std::size_t>(slice.begin + i)] = 1.0F;
  testing::write_buffer(run.engine, "master", before);
  run.step();
  const std::vector<float> after = testing::read_buffer(run.engine, "master");
  for (const FlatLayout::Slice& slice : run.engine.layout().slices()) {
    for (std::int64_t i = slice.begin; i < slice.begin + slice.elements; ++i) {
      const float old = before[static_cast<std::size_t>(i)], now = after[static_cast<std::size_t>(i)];
      const float expected[] = {old, 1.0F, 0.5F * old};
      // lr and weight decay are rounded to float: two roundings of a value of 1.
      ASSERT_NEAR(now, expected[slice.group], slice.group == 0 ? 0 : 1e-6) << "group " << slice.group;
    }
  }
  EXPECT_EQ(run.engine.lr(), (std::vector<double>{0.0, 1e-3, 0.5}));
}

TEST_P(EngineTest, LossFallsAlikeInEveryPrecision) {
  const ScratchFolder folder;
  for (const Task& task : tasks(place(), folder)) {
    std::vector<double> last;
    for (const DType compute : {DType::f32, DType::bf16, DType::f16}) {
      TrainingRun run{task, engine_defaults(task, 8, 1, 1e-2), 1, 60};
      run.options.compute = compute;
      if (compute == DType::bf16) run.options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
      if (compute == DType::f16) run.options.scaler = testing::dynamic_scaler(10);
      const Outcome outcome = train_on(place(), run).front();
      EXPECT_EQ(outcome.state.applied, 60);
      const std::vector<double> losses = outcome.losses();
      double tail = 0;
      for (std::size_t i = losses.size() - 10; i < losses.size(); ++i) tail += losses[i] / 10;
      EXPECT_LT(tail, 0.75 * losses.front());
      last.push_back(tail);
    }
    // bf16 keeps 8 bits of each number, fp16 11: the ends differ, but no more than two seeds would.
    EXPECT_NEAR(last[1], last[0], 0.05 * last[0]) << "bf16";
    EXPECT_NEAR(last[2], last[0], 0.02 * last[0]) << "fp16";
  }
}

// Loss scaling

TEST_P(EngineTest, TheDynamicScaleFollowsTheRuleOnEveryRank) {
  const ScratchFolder folder;
  for (const Task& task : tasks(place(), folder)) {
    TrainingRun run{task, engine_defaults(task, 4), 3, 60};
    run.options.compute = DType::f16;
    run.options.scaler = testing::dynamic_scaler(32, 5);
    run.options.scaler.hysteresis = 2;
    std::vector<std::vector<double>> lr(3);
    run.prepare = [&](Engine& engine) {
      lr[static_cast<std::size_t>(engine.comm().rank())].push_back(engine.lr().front());
    };
    run.after_step = [&](Engine& engine, std::int64_t) {
      lr[static_cast<std::size_t>(engine.comm().rank())].push_back(engine.lr().front());
    };
    const auto outcomes = train_on(place(), run);
    expect_equal(outcomes[1], outcomes[0]);
    expect_equal(outcomes[2], outcomes[0]);
    if (place().immediate()) {
      EXPECT_EQ(lr[1], lr[0]);
      EXPECT_EQ(lr[2], lr[0]);
    }

    // Driven by the recorded skips, the rule gives the recorded scales; and lr stands still on a skipped step.
    StepState state = initial_state(run.options.scaler);
    std::vector<StepValues> values(1);
    std::int64_t applied = 0, skipped = 0;
    for (std::size_t i = 0; i < outcomes[0].results.size(); ++i) {
      const StepResult& result = outcomes[0].results[i];
      EXPECT_EQ(result.scale, state.scale) << "step " << i;
      ASSERT_TRUE(advance_scaler(run.options.scaler, result.skipped != 0, state));
      EXPECT_EQ(result.next_scale, state.scale) << "step " << i;
      run.options.schedule->values_at(applied, values);
      EXPECT_EQ(outcomes[0].results[i].applied_values[0].lr, values[0].lr) << "of the updates before it";
      applied += result.skipped == 0 ? 1 : 0;
      skipped += result.skipped;
      EXPECT_EQ(result.applied, applied);
      if (result.skipped != 0) {
        EXPECT_GE(result.first_bad, 0);
      }
      if (!place().immediate()) continue;  // the host knows later
      run.options.schedule->values_at(applied, values);
      EXPECT_EQ(lr[0][i + 1], values[0].lr);
      if (result.skipped != 0) {
        EXPECT_EQ(lr[0][i + 1], lr[0][i]);
      }
    }
    EXPECT_GE(skipped, 8);
    EXPECT_GE(applied, 20);
    EXPECT_EQ(outcomes[0].state.applied, applied);
    EXPECT_EQ(outcomes[0].state.attempted, 60);
    EXPECT_LT(outcomes[0].results.back().loss, outcomes[0].results.front().loss);
  }
}

TEST_P(EngineTest, ASkippedStepChangesNoParameter) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.compute = DType::f16;
  options.scaler = testing::dynamic_scaler(32);
  Single run(place(), task, options);
  const std::vector<float> master = testing::read_buffer(run.engine, "master");
  run.step();
  ASSERT_EQ(run.results().front().skipped, 1);
  EXPECT_EQ(testing::read_buffer(run.engine, "master"), master);
  EXPECT_EQ(testing::read_buffer(run.engine, "exp_avg"), std::vector<float>(master.size(), 0.0F));
}

TEST_P(EngineTest, TheSmallestScaleEndsTheRun) {
  const Task task = mlp_task();
  TrainingRun run{task, engine_defaults(task, 4), 2, 10};
  run.options.compute = DType::f16;
  run.options.scaler = testing::dynamic_scaler(32);
  run.options.scaler.min_scale = std::exp2(30);
  const std::string text = error_text(ErrorKind::diverged, [&] { (void)train_on(place(), run); });
  EXPECT_NE(text.find("step 3"), std::string::npos) << text;
  EXPECT_NE(text.find("1073741824"), std::string::npos) << text;
  EXPECT_NE(text.find("4294967296 2147483648"), std::string::npos) << text;
  EXPECT_NE(text.find("layers.2."), std::string::npos) << "no parameter named: " << text;
  EXPECT_NE(text.find("Try:"), std::string::npos) << text;
}

/// Makes the first weight of `parameter` NaN.
void poison(Engine& engine, const std::string& parameter) {
  std::vector<float> master = testing::read_buffer(engine, "master");
  for (const FlatLayout::Slice& slice : engine.layout().slices())
    if (engine.model().parameters()[static_cast<std::size_t>(slice.param)].name == parameter)
      master[static_cast<std::size_t>(slice.begin)] = std::numeric_limits<float>::quiet_NaN();
  testing::write_buffer(engine, "master", master);
}

TEST_P(EngineTest, NaNEndsAnFp32RunOnEveryRank) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 2, 10};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (step == 2 && engine.comm().rank() == 1) poison(engine, "layers.2.weight");
  };
  const std::string text = error_text(ErrorKind::diverged, [&] { (void)train_on(place(), run); });
  EXPECT_NE(text.find("step 4"), std::string::npos) << text;
  EXPECT_NE(text.find("layers.2."), std::string::npos) << text;
  EXPECT_NE(text.find("Try:"), std::string::npos) << text;
}

TEST_P(EngineTest, NaNIsSkippedAndSaidInBf16) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 2, 6};
  run.options.compute = DType::bf16;
  run.options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  std::string named;
  run.after_step = [&](Engine& engine, std::int64_t step) {
    if (step == 2) poison(engine, "layers.2.weight");
  };
  run.prepare = [&](Engine& engine) {
    if (engine.comm().rank() == 0) named = engine.parameter_at(engine.layout().slices().front().begin);
  };
  const auto outcomes = train_on(place(), run);
  expect_equal(outcomes[1], outcomes[0]);
  EXPECT_EQ(outcomes[0].skips(), (std::vector<int>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(outcomes[0].state.applied, 3);
  EXPECT_EQ(outcomes[0].results.back().first_bad, 0);
  EXPECT_NE(named.find("layers.2."), std::string::npos) << named;
}

TEST_P(EngineTest, AStopReachesEveryRankInTheSameStep) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 3, 5};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (step == 1 && engine.comm().rank() == 2) engine.request_stop();
  };
  for (const Outcome& outcome : train_on(place(), run)) {
    EXPECT_EQ(outcome.results[1].stop, 0);
    EXPECT_EQ(outcome.results[2].stop, Engine::wish_to_stop);
  }
}

TEST_P(EngineTest, AWishToSaveReachesEveryRankInOneStepAlsoBesideOneToStop) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 3, 5};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (step == 0 && engine.comm().rank() == 1) engine.request_save();
    if (step == 2) engine.request_save();
    if (step == 2 && engine.comm().rank() == 0) engine.request_stop();
  };
  for (const Outcome& outcome : train_on(place(), run)) {
    EXPECT_EQ(outcome.results[1].stop, Engine::wish_to_save);
    EXPECT_EQ(outcome.results[2].stop, 0);
    EXPECT_EQ(outcome.results[3].stop, Engine::wish_to_save | Engine::wish_to_stop);
  }
}

TEST_P(EngineTest, AStepSaysWhetherAnyRankIsBusyWhateverElseIsWished) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 3, 5};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (engine.comm().rank() == 1) engine.set_busy(step == 0 || step == 2);
    if (step == 2 && engine.comm().rank() == 2) engine.request_stop();
  };
  for (const Outcome& outcome : train_on(place(), run)) {
    EXPECT_EQ(outcome.results[1].stop, Engine::still_busy);
    EXPECT_EQ(outcome.results[2].stop, 0);
    EXPECT_EQ(outcome.results[3].stop, Engine::still_busy | Engine::wish_to_stop);
    EXPECT_EQ(outcome.results[4].stop, Engine::wish_to_stop);
  }
}

// State

TEST_P(EngineTest, StateWrittenIntoAFreshEngineGoesOnWithTheSameBits) {
  const ScratchFolder folder;
  const Task task = tasks(place(), folder).back();
  EngineOptions options = engine_defaults(task, 4);
  options.compute = DType::f16;
  options.scaler = testing::dynamic_scaler(26, 4);
  Single whole(place(), task, options);
  for (int i = 0; i < 20; ++i) whole.step();

  Single first(place(), task, options);
  for (int i = 0; i < 10; ++i) first.step();
  options.seed = 99;  // other initial parameters
  Single second(place(), task, options);
  for (const std::string& name : first.engine.buffer_names())
    testing::write_buffer(second.engine, name, testing::read_buffer(first.engine, name));
  second.engine.write_state(first.engine.read_state());
  second.steps = 10;
  for (int i = 0; i < 10; ++i) second.step();
  EXPECT_EQ(testing::read_buffer(second.engine, "master"), testing::read_buffer(whole.engine, "master"));
  EXPECT_EQ(testing::read_buffer(second.engine, "exp_avg_sq"), testing::read_buffer(whole.engine, "exp_avg_sq"));
  EXPECT_EQ(second.engine.read_state().scale, whole.engine.read_state().scale);
  EXPECT_EQ(second.engine.lr(), whole.engine.lr());
}

TEST_P(EngineTest, InitialParametersAreAFunctionOfTheSeed) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  Single a(place(), task, options), b(place(), task, options);
  options.seed = 2;
  Single c(place(), task, options);
  EXPECT_EQ(testing::read_buffer(a.engine, "master"), testing::read_buffer(b.engine, "master"));
  EXPECT_NE(testing::read_buffer(a.engine, "master"), testing::read_buffer(c.engine, "master"));
  EXPECT_GT(a.engine.bytes(), testing::read_buffer(a.engine, "master").size() * 4 * sizeof(float));
}

TEST(Engine, MakesOnlyWhatFitsTogether) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.groups.clear();
  error_text(ErrorKind::internal, [&] { Single run(testing::cpu_place, task, options); });
  options = engine_defaults(task, 4);
  options.grad_accum = 0;
  error_text(ErrorKind::internal, [&] { Single run(testing::cpu_place, task, options); });
  options = engine_defaults(task, 4);
  options.groups.push_back(testing::adam_group(0.1));
  error_text(ErrorKind::internal, [&] { Single run(testing::cpu_place, task, options); });
}

// A device that puts work off

/// fp16 from a scale that overflows, accumulation, two ranks, many buckets under backward, steps in flight.
void trains_as_on_the_cpu(const testing::TestPlace& where, const Task& task, std::int64_t steps) {
  TrainingRun run{task, engine_defaults(task, 2, 2, 1e-2), 2, steps};
  run.options.compute = DType::f16;
  run.options.scaler = testing::dynamic_scaler(26, 4);
  run.options.max_in_flight = 3;
  std::vector<double> val_loss(2);
  run.after_step = [&](Engine& engine, std::int64_t step) {
    // In between, with steps in flight.
    if (step == 4)
      val_loss[static_cast<std::size_t>(engine.comm().rank())] = evaluate_all(engine, *task.dataset()).value().loss;
  };
  const auto cpu = train_on_cpu(run);
  const double cpu_val_loss = val_loss[0];
  const auto first = train_on(where, run, 1);
  ASSERT_EQ(first[0].results.size(), static_cast<std::size_t>(steps));
  expect_equal(first[1], first[0]);
  const double first_val_loss = val_loss[0];
  EXPECT_EQ(val_loss[1], first_val_loss);
  // fp16 activations and reductions in another order, five steps long.
  EXPECT_NEAR(first_val_loss, cpu_val_loss, 5e-3 * cpu_val_loss);
  for (const std::uint64_t seed : {2U, 3U}) {
    const auto other = train_on(where, run, seed);
    expect_equal(other[0], first[0]);
    expect_equal(other[1], first[0]);
    EXPECT_EQ(val_loss, (std::vector<double>{first_val_loss, first_val_loss}));
  }
  const std::vector<int> skips = first[0].skips();
  EXPECT_GT(std::count(skips.begin(), skips.end(), 1), 0) << "the scale must overflow on the way";
  EXPECT_GE(std::count(skips.begin(), skips.end(), 0), 5);
  EXPECT_EQ(skips, cpu[0].skips());
  EXPECT_EQ(first[0].scales(), cpu[0].scales());
  expect_close(first[0].losses(), cpu[0].losses(), 5e-3);
  EXPECT_LT(first[0].losses().back(), first[0].losses().front());
}

TEST_P(EngineDeviceTest, TrainsAnMlpAsOnTheCpu) { trains_as_on_the_cpu(place(), mlp_task(), 24); }

TEST_P(EngineDeviceTest, TrainsAGptAsOnTheCpu) {
  const ScratchFolder folder;
  trains_as_on_the_cpu(place(), gpt_task(folder), 12);
}

TEST(Engine, ResultsOfADeviceComeLateAndComplete) {
  const Task task = mlp_task();
  TrainingRun run{task, engine_defaults(task, 4), 1, 12};
  std::vector<std::size_t> behind;
  std::size_t seen = 0;
  const auto device = make_emulated_device(4);
  const auto comm = comm::make_single(device.get());
  const auto dataset = task.dataset();
  const auto model = task.model();
  Engine engine(*model, *comm, {.device = device.get(), .kernels = &kernels::emulated_table(), .threads = 1},
                run.options);
  for (std::int64_t step = 0; step < 12; ++step) {
    testing::train_step(engine, *dataset, step);
    for (const StepResult& result : engine.results()) EXPECT_EQ(result.step, static_cast<std::int64_t>(seen++));
    behind.push_back(static_cast<std::size_t>(step) + 1 - seen);
  }
  EXPECT_GT(*std::max_element(behind.begin(), behind.end()), 1U) << "no step was ever in flight";
  EXPECT_LE(*std::max_element(behind.begin(), behind.end()), 3U);
  engine.drain();
  seen += engine.results().size();
  EXPECT_EQ(seen, 12U);
}

TEST(Engine, ATamperedScheduleIsExplainedByADeviceTooAfterSeveralSteps) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 2, 12};
  run.options.schedule = sched::make_constant(run.options.groups);
  run.adjust = [](EngineOptions& options, int rank) {
    if (rank == 1) options.schedule = run::off_by_one_bit(options.schedule, 3);
  };
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const std::string text = error_text(ErrorKind::desync, [&] { (void)testing::train_emulated(run, seed); });
    EXPECT_NE(text.find("step 4"), std::string::npos) << text;
    EXPECT_NE(text.find("broadcast 0.003, rank 1 evaluated 0.0030000000000000005"), std::string::npos) << text;
  }
}

TEST_P(EngineTest, ADivergenceNamesTheParameterThatBlewUpRatherThanAGradient) {
  Single run(place(), mlp_task(), engine_defaults(mlp_task(), 8));
  const std::int64_t at = run.engine.layout().of(2).begin + 5;
  const float infinity = std::numeric_limits<float>::infinity();
  run.engine.write_range("master", at, 1, &infinity);
  run.step();

  const std::string text = error_text(ErrorKind::diverged, [&] { (void)run.results(); });

  const std::string name = run.model->parameters()[2].name;
  EXPECT_NE(text.find("the parameters themselves are not finite: " + name + "[5] is inf"), std::string::npos) << text;
  EXPECT_EQ(text.find("first non-finite gradient"), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::engine
