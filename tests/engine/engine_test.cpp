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

/// An engine of one rank on the CPU, with what it needs.
struct Single {
  explicit Single(const Task& task, const EngineOptions& options)
      : dataset(task.dataset()),
        model(task.model()),
        device(make_cpu_device()),
        comm(comm::make_single()),
        engine(*model, *comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1}, options) {}
  void step() { testing::train_step(engine, *dataset, steps++); }
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

// Data parallelism

void ranks_agree_with_one(const Task& task) {
  const std::vector<double> two = train_on_cpu({task, engine_defaults(task, 6), 2}).front().losses();
  const std::vector<double> three = train_on_cpu({task, engine_defaults(task, 4), 3}).front().losses();
  const std::vector<double> one = train_on_cpu({task, engine_defaults(task, 12), 1}).front().losses();
  ASSERT_EQ(one.size(), 50U);
  EXPECT_LT(one.back(), one.front());
  expect_close(two, one, 1e-5);
  expect_close(three, one, 1e-5);
}

TEST(Engine, RanksAgreeWithOneRankMlp) { ranks_agree_with_one(mlp_task()); }

TEST(Engine, RanksAgreeWithOneRankGpt) {
  const ScratchFolder folder;
  ranks_agree_with_one(gpt_task(folder));
}

TEST(Engine, AllRanksHoldTheSameBits) {
  const ScratchFolder folder;
  const Task task = gpt_task(folder);
  const auto outcomes = train_on_cpu({task, engine_defaults(task, 2), 3, 10});
  expect_equal(outcomes[1], outcomes[0]);
  expect_equal(outcomes[2], outcomes[0]);
  const auto again = train_on_cpu({task, engine_defaults(task, 2), 3, 10});
  expect_equal(again[0], outcomes[0]);
}

TEST(Engine, AccumulationIsALargerBatch) {
  const ScratchFolder folder;
  for (const Task& task : {mlp_task(), gpt_task(folder)}) {
    const auto accumulated = train_on_cpu({task, engine_defaults(task, 4, 2), 1, 30}).front().losses();
    const auto whole = train_on_cpu({task, engine_defaults(task, 8, 1), 1, 30}).front().losses();
    expect_close(accumulated, whole, 1e-5);
    const auto shared = train_on_cpu({task, engine_defaults(task, 2, 2), 2, 30}).front().losses();
    expect_close(shared, whole, 1e-5);
  }
}

TEST(Engine, NoSyncChangesNothingButTheTime) {
  const Task task = mlp_task();
  const auto plain = train_on_cpu({task, engine_defaults(task, 4), 2, 5});
  std::vector<Outcome> held(2);
  comm::run_ranks(2, [&](comm::Communicator& comm) {
    const auto device = make_cpu_device();
    const auto dataset = task.dataset();
    const auto model = task.model();
    Engine engine(*model, comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                  engine_defaults(task, 4));
    const Engine::NoSync guard = engine.no_sync();
    for (int step = 0; step < 5; ++step) testing::train_step(engine, *dataset, step);
    Outcome& outcome = held[static_cast<std::size_t>(comm.rank())];
    outcome = {engine.results(), testing::read_buffer(engine, "master"), engine.read_state()};
  });
  expect_equal(held[0], plain[0]);
  expect_equal(held[1], plain[1]);
}

TEST(Engine, EvaluationHasTheSameBitsOnAnyNumberOfRanks) {
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
      (void)train_on_cpu(run);
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

TEST(Engine, TheUpdateUsesTheSchedule) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 8);
  options.groups = {testing::sgd_group(0.1)};
  options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false};
  options.gradient_clipping = 0;
  options.schedule = sched::make_schedule("StepDecay", {{"step_size", 1}, {"gamma", 0.5}}, options.groups);
  Single run(task, options);
  std::vector<double> lengths;
  for (int step = 0; step < 4; ++step) {
    const double lr = run.engine.lr().front();
    EXPECT_DOUBLE_EQ(lr, 0.1 * std::pow(0.5, step));
    const std::vector<float> before = testing::read_buffer(run.engine, "master");
    run.step();
    const std::vector<float> after = testing::read_buffer(run.engine, "master");
    double length2 = 0;
    for (std::size_t i = 0; i < after.size(); ++i) length2 += std::pow(static_cast<double>(after[i]) - before[i], 2);
    const StepResult result = run.engine.results().front();
    // Differences of parameters of about 0.1, rounded to 2^-27 of them, against steps of 1e-3 and less.
    EXPECT_NEAR(std::sqrt(length2), lr * result.grad_norm, 1e-4 * lr * result.grad_norm);
  }
}

TEST(Engine, ATamperedScheduleStopsEveryRank) {
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
      comm::run_ranks(3, [&](comm::Communicator& comm) {
        const Count count{&unwound};
        const auto device = make_cpu_device();
        (void)testing::train_rank(run, comm, {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1});
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
  Single run(mlp_task(), engine_defaults(mlp_task(), 4));
  const std::string text = error_text(ErrorKind::internal, [&] { run.engine.set_lr({0.5}); });
  EXPECT_NE(text.find("managed"), std::string::npos) << text;
}

TEST(Engine, AUserManagedLrIsFollowed) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.schedule = nullptr;
  options.groups = {testing::adam_group(0.0)};
  Single run(task, options);
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
  const std::string text = error_text(ErrorKind::desync, [&] { (void)train_on_cpu(two); });
  EXPECT_NE(text.find("broadcast 0.25, rank 1 evaluated 0.125"), std::string::npos) << text;
}

TEST(Engine, WrongCallOrdersAreRefused) {
  const Task task = mlp_task();
  Single run(task, engine_defaults(task, 4, 2));
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
  EXPECT_EQ(engine.results().back().applied, 2);
}

// Numbers

TEST(Engine, ClippingBoundsTheUpdateAndZeroTurnsItOff) {
  const Task task = mlp_task();
  const auto run_with = [&](double clip) {
    EngineOptions options = engine_defaults(task, 16);
    options.groups = {testing::sgd_group(1.0)};
    options.optimizer = {.kind = optim::OptimizerOptions::Kind::sgd, .bias_correction = false};
    options.gradient_clipping = clip;
    options.schedule = nullptr;
    Single run(task, options);
    const std::vector<float> before = testing::read_buffer(run.engine, "master");
    run.step();
    const std::vector<float> after = testing::read_buffer(run.engine, "master");
    double length2 = 0;
    for (std::size_t i = 0; i < after.size(); ++i) length2 += std::pow(static_cast<double>(after[i]) - before[i], 2);
    return std::pair{std::sqrt(length2), run.engine.results().front().grad_norm};
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

TEST(Engine, ParameterGroupsHaveTheirOwnLrAndDecay) {
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
  Single run(task, options);
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

TEST(Engine, LossFallsAlikeInEveryPrecision) {
  const ScratchFolder folder;
  for (const Task& task : {mlp_task(), gpt_task(folder)}) {
    std::vector<double> last;
    for (const DType compute : {DType::f32, DType::bf16, DType::f16}) {
      TrainingRun run{task, engine_defaults(task, 8, 1, 1e-2), 1, 60};
      run.options.compute = compute;
      if (compute == DType::bf16) run.options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
      if (compute == DType::f16) run.options.scaler = testing::dynamic_scaler(10);
      const Outcome outcome = train_on_cpu(run).front();
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

TEST(Engine, TheDynamicScaleFollowsTheRuleOnEveryRank) {
  const ScratchFolder folder;
  for (const Task& task : {mlp_task(), gpt_task(folder)}) {
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
    const auto outcomes = train_on_cpu(run);
    expect_equal(outcomes[1], outcomes[0]);
    expect_equal(outcomes[2], outcomes[0]);
    EXPECT_EQ(lr[1], lr[0]);
    EXPECT_EQ(lr[2], lr[0]);

    // Driven by the recorded skips, the rule gives the recorded scales; and lr stands still on a skipped step.
    StepState state = initial_state(run.options.scaler);
    std::vector<StepValues> values(1);
    std::int64_t applied = 0, skipped = 0;
    for (std::size_t i = 0; i < outcomes[0].results.size(); ++i) {
      const StepResult& result = outcomes[0].results[i];
      EXPECT_EQ(result.scale, state.scale) << "step " << i;
      ASSERT_TRUE(advance_scaler(run.options.scaler, result.skipped != 0, state));
      EXPECT_EQ(result.next_scale, state.scale) << "step " << i;
      applied += result.skipped == 0 ? 1 : 0;
      skipped += result.skipped;
      EXPECT_EQ(result.applied, applied);
      run.options.schedule->values_at(applied, values);
      EXPECT_EQ(lr[0][i + 1], values[0].lr);
      if (result.skipped != 0) {
        EXPECT_EQ(lr[0][i + 1], lr[0][i]);
        EXPECT_GE(result.first_bad, 0);
      }
    }
    EXPECT_GE(skipped, 8);
    EXPECT_GE(applied, 20);
    EXPECT_EQ(outcomes[0].state.applied, applied);
    EXPECT_EQ(outcomes[0].state.attempted, 60);
    EXPECT_LT(outcomes[0].results.back().loss, outcomes[0].results.front().loss);
  }
}

TEST(Engine, ASkippedStepChangesNoParameter) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.compute = DType::f16;
  options.scaler = testing::dynamic_scaler(32);
  Single run(task, options);
  const std::vector<float> master = testing::read_buffer(run.engine, "master");
  run.step();
  ASSERT_EQ(run.engine.results().front().skipped, 1);
  EXPECT_EQ(testing::read_buffer(run.engine, "master"), master);
  EXPECT_EQ(testing::read_buffer(run.engine, "exp_avg"), std::vector<float>(master.size(), 0.0F));
}

TEST(Engine, TheSmallestScaleEndsTheRun) {
  const Task task = mlp_task();
  TrainingRun run{task, engine_defaults(task, 4), 2, 10};
  run.options.compute = DType::f16;
  run.options.scaler = testing::dynamic_scaler(32);
  run.options.scaler.min_scale = std::exp2(30);
  const std::string text = error_text(ErrorKind::diverged, [&] { (void)train_on_cpu(run); });
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

TEST(Engine, NaNEndsAnFp32RunOnEveryRank) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 2, 10};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (step == 2 && engine.comm().rank() == 1) poison(engine, "layers.2.weight");
  };
  const std::string text = error_text(ErrorKind::diverged, [&] { (void)train_on_cpu(run); });
  EXPECT_NE(text.find("step 4"), std::string::npos) << text;
  EXPECT_NE(text.find("layers.2."), std::string::npos) << text;
  EXPECT_NE(text.find("Try:"), std::string::npos) << text;
}

TEST(Engine, NaNIsSkippedAndSaidInBf16) {
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
  const auto outcomes = train_on_cpu(run);
  expect_equal(outcomes[1], outcomes[0]);
  EXPECT_EQ(outcomes[0].skips(), (std::vector<int>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(outcomes[0].state.applied, 3);
  EXPECT_EQ(outcomes[0].results.back().first_bad, 0);
  EXPECT_NE(named.find("layers.2."), std::string::npos) << named;
}

TEST(Engine, AStopReachesEveryRankInTheSameStep) {
  TrainingRun run{mlp_task(), engine_defaults(mlp_task(), 4), 3, 5};
  run.after_step = [](Engine& engine, std::int64_t step) {
    if (step == 1 && engine.comm().rank() == 2) engine.request_stop();
  };
  for (const Outcome& outcome : train_on_cpu(run)) {
    EXPECT_EQ(outcome.results[1].stop, 0);
    EXPECT_EQ(outcome.results[2].stop, 1);
  }
}

// State

TEST(Engine, StateWrittenIntoAFreshEngineGoesOnWithTheSameBits) {
  const ScratchFolder folder;
  const Task task = gpt_task(folder);
  EngineOptions options = engine_defaults(task, 4);
  options.compute = DType::f16;
  options.scaler = testing::dynamic_scaler(26, 4);
  Single whole(task, options);
  for (int i = 0; i < 20; ++i) whole.step();

  Single first(task, options);
  for (int i = 0; i < 10; ++i) first.step();
  options.seed = 99;  // other initial parameters
  Single second(task, options);
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

TEST(Engine, InitialParametersAreAFunctionOfTheSeed) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  Single a(task, options), b(task, options);
  options.seed = 2;
  Single c(task, options);
  EXPECT_EQ(testing::read_buffer(a.engine, "master"), testing::read_buffer(b.engine, "master"));
  EXPECT_NE(testing::read_buffer(a.engine, "master"), testing::read_buffer(c.engine, "master"));
  EXPECT_GT(a.engine.bytes(), testing::read_buffer(a.engine, "master").size() * 4 * sizeof(float));
}

TEST(Engine, MakesOnlyWhatFitsTogether) {
  const Task task = mlp_task();
  EngineOptions options = engine_defaults(task, 4);
  options.groups.clear();
  error_text(ErrorKind::internal, [&] { Single run(task, options); });
  options = engine_defaults(task, 4);
  options.grad_accum = 0;
  error_text(ErrorKind::internal, [&] { Single run(task, options); });
  options = engine_defaults(task, 4);
  options.groups.push_back(testing::adam_group(0.1));
  error_text(ErrorKind::internal, [&] { Single run(task, options); });
}

// A device that puts work off

/// fp16 from a scale that overflows, accumulation, two ranks, many buckets under backward, steps in flight.
void trains_on_the_emulated_device(const Task& task, std::int64_t steps) {
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
  const auto emulated = testing::train_emulated(run, 1);
  ASSERT_EQ(emulated[0].results.size(), static_cast<std::size_t>(steps));
  expect_equal(emulated[1], emulated[0]);
  const double emulated_val_loss = val_loss[0];
  EXPECT_EQ(val_loss[1], emulated_val_loss);
  // fp16 activations and reductions in another order, five steps long.
  EXPECT_NEAR(emulated_val_loss, cpu_val_loss, 5e-3 * cpu_val_loss);
  for (const std::uint64_t seed : {2U, 3U}) {
    const auto other = testing::train_emulated(run, seed);
    expect_equal(other[0], emulated[0]);
    expect_equal(other[1], emulated[0]);
    EXPECT_EQ(val_loss, (std::vector<double>{emulated_val_loss, emulated_val_loss}));
  }
  const std::vector<int> skips = emulated[0].skips();
  EXPECT_GT(std::count(skips.begin(), skips.end(), 1), 0) << "the scale must overflow on the way";
  EXPECT_GE(std::count(skips.begin(), skips.end(), 0), 5);
  EXPECT_EQ(skips, cpu[0].skips());
  EXPECT_EQ(emulated[0].scales(), cpu[0].scales());
  expect_close(emulated[0].losses(), cpu[0].losses(), 5e-3);
  EXPECT_LT(emulated[0].losses().back(), emulated[0].losses().front());
}

TEST(Engine, TrainsAnMlpOnTheEmulatedDevice) { trains_on_the_emulated_device(mlp_task(), 24); }

TEST(Engine, TrainsAGptOnTheEmulatedDevice) {
  const ScratchFolder folder;
  trains_on_the_emulated_device(gpt_task(folder), 12);
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

TEST(Engine, ADivergenceNamesTheParameterThatBlewUpRatherThanAGradient) {
  Single run(mlp_task(), engine_defaults(mlp_task(), 8));
  const std::int64_t at = run.engine.layout().of(2).begin + 5;
  const float infinity = std::numeric_limits<float>::infinity();
  run.engine.write_range("master", at, 1, &infinity);
  run.step();

  const std::string text = error_text(ErrorKind::diverged, [&] { (void)run.engine.results(); });

  const std::string name = run.model->parameters()[2].name;
  EXPECT_NE(text.find("the parameters themselves are not finite: " + name + "[5] is inf"), std::string::npos) << text;
  EXPECT_EQ(text.find("first non-finite gradient"), std::string::npos) << text;
}

}  // namespace
}  // namespace lockstep::engine
