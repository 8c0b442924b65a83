#include "engine/non_finite_search.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "tests/support/training.hpp"

namespace lockstep::engine {
namespace {

using testing::Task;
using testing::TestPlace;
using What = NonFinite::What;

constexpr float inf = std::numeric_limits<float>::infinity();

/// `dataset` with other features in the sample at one position of the training sequence.
class Spiked final : public data::Dataset {
 public:
  Spiked(std::unique_ptr<data::Dataset> dataset, std::int64_t position, float value)
      : dataset_(std::move(dataset)), position_(position), value_(value) {}
  [[nodiscard]] std::string describe() const override { return dataset_->describe(); }
  [[nodiscard]] std::uint64_t fingerprint() const override { return dataset_->fingerprint(); }
  [[nodiscard]] int classes() const override { return dataset_->classes(); }
  [[nodiscard]] int features() const override { return dataset_->features(); }
  [[nodiscard]] std::int64_t train_samples() const override { return dataset_->train_samples(); }
  [[nodiscard]] std::int64_t eval_samples() const override { return dataset_->eval_samples(); }
  void train_batch(std::int64_t position, std::int64_t count, data::HostBatch& out) const override {
    dataset_->train_batch(position, count, out);
    if (position_ >= position && position_ < position + count)
      std::fill_n(out.features.begin() + (position_ - position) * features(), features(), value_);
  }
  void eval_batch(std::int64_t first, std::int64_t count, data::HostBatch& out) const override {
    dataset_->eval_batch(first, count, out);
  }

 private:
  std::unique_ptr<data::Dataset> dataset_;
  std::int64_t position_;
  float value_;
};

Task spiked(std::int64_t position, float value) {
  Task task = testing::mlp_task();
  task.dataset = [position, value] { return std::make_unique<Spiked>(testing::mlp_task().dataset(), position, value); };
  return task;
}

EngineOptions options_for(const Task& task, DType compute, int stage, int grad_accum = 1) {
  EngineOptions options = testing::engine_defaults(task, 4, grad_accum);
  options.compute = compute;
  options.zero_stage = stage;
  options.scaler.on_overflow = ScalerConfig::OnOverflow::skip;
  return options;
}

/// This rank's samples of a micro-batch of a step, as train_step deals them out.
std::function<const data::HostBatch&(int)> samples_of(Engine& engine, const data::Dataset& dataset, std::int64_t step,
                                                      data::HostBatch& batch) {
  return [&engine, &dataset, step, &batch](int micro) -> const data::HostBatch& {
    const std::int64_t size = engine.options().micro_batch.batch, accum = engine.options().grad_accum;
    const std::int64_t leaf = (step * engine.comm().size() + engine.comm().rank()) * accum + micro;
    dataset.train_batch(leaf * size, size, batch);
    return batch;
  };
}

/// What is found after `steps` steps, of which the last must have been skipped; the same on all ranks.
NonFinite found_in(const TestPlace& place, const Task& task, const EngineOptions& options, int ranks,
                   std::int64_t steps = 1, const std::function<void(Engine&)>& prepare = {}) {
  std::vector<NonFinite> found(static_cast<std::size_t>(ranks));
  testing::on_ranks(place, ranks, [&](comm::Communicator& comm, const Place& where) {
    const auto dataset = task.dataset();
    const auto model = task.model();
    Engine engine(*model, comm, where, options);
    if (prepare) prepare(engine);
    for (std::int64_t step = 0; step < steps; ++step) testing::train_step(engine, *dataset, step);
    engine.drain();
    const std::vector<FinishedStep> results = engine.results();
    EXPECT_EQ(results.back().skipped, 1);
    data::HostBatch batch;
    found[static_cast<std::size_t>(comm.rank())] =
        engine.find_non_finite(results.back(), samples_of(engine, *dataset, steps - 1, batch));
  });
  for (const NonFinite& other : found) {
    EXPECT_EQ(other.what, found[0].what);
    EXPECT_EQ(other.rank, found[0].rank);
    EXPECT_EQ(other.op, found[0].op);
    EXPECT_EQ(other.sample, found[0].sample);
  }
  return found[0];
}

std::string text_of(const NonFinite& found, const Task& task, const EngineOptions& options, int ranks) {
  const auto model = task.model();
  const nn::Plan plan = nn::plan(*model, kernels::cpu_table(), options.micro_batch, options.compute);
  return to_text(found, *model, plan, ranks, options.grad_accum, "");
}

std::string op_name(const NonFinite& found, const Task& task, const EngineOptions& options) {
  const auto model = task.model();
  const nn::Plan plan = nn::plan(*model, kernels::cpu_table(), options.micro_batch, options.compute);
  return plan.ops.at(static_cast<std::size_t>(found.op)).name;
}

TEST(NonFiniteSearch, NamesAParameterThatIsReadWithInfinity) {
  const Task task = testing::mlp_task();
  for (const int stage : {0, 3})
    for (const int ranks : {1, 3}) {
      const EngineOptions options = options_for(task, DType::f32, stage);
      const NonFinite found = found_in(testing::cpu_place, task, options, ranks, 1, [](Engine& engine) {
        const std::int64_t at = engine.layout().of(2).begin + 5;
        engine.write_range("master", at, 1, &inf);
      });
      EXPECT_EQ(found.what, What::parameter);
      EXPECT_EQ(found.param, 2);
      EXPECT_EQ(found.first, 5);
      EXPECT_EQ(found.bad, 1);
      EXPECT_NE(text_of(found, task, options, ranks).find("layers.1.weight[5], 1 of 384 elements is not finite"),
                std::string::npos)
          << text_of(found, task, options, ranks);
    }
}

TEST(NonFiniteSearch, NamesRankMicroBatchAndSampleOfAnOverflowForward) {
  constexpr int accum = 2, micro = 4;
  for (const TestPlace& place : {testing::cpu_place, testing::emulated_place})
    for (const int stage : {0, 2, 3})
      for (const int ranks : {1, 3})
        for (const int row : {0, 3}) {
          if (ranks == 1 && stage > 0) continue;
          const int rank = ranks - 1, at = row == 0 ? 0 : 1;
          // In the second step.
          const std::int64_t position = ((1 * ranks + rank) * accum + at) * micro + row;
          const Task task = spiked(position, 3e38F);
          for (const DType compute : {DType::f32, DType::f16}) {
            const EngineOptions options = options_for(task, compute, stage, accum);
            const NonFinite found = found_in(place, task, options, ranks, 2);
            SCOPED_TRACE(fmt::format("{} stage {} ranks {} position {} {}", place.name(), stage, ranks, position,
                                     to_string(compute)));
            EXPECT_EQ(found.what, What::result);
            EXPECT_EQ(found.backward, 0);
            // 3e38 is no number of fp16; in fp32 the first product overflows.
            EXPECT_EQ(op_name(found, task, options), compute == DType::f16 ? "input" : "linear_gelu");
            EXPECT_EQ(found.rank, rank);
            EXPECT_EQ(found.micro, at);
            EXPECT_EQ(found.row, row);
            EXPECT_EQ(found.sample, position);
          }
        }
}

TEST(NonFiniteSearch, SaysThatASampleItselfIsNotFinite) {
  const Task task = spiked(9, inf);
  const NonFinite found = found_in(testing::cpu_place, task, options_for(task, DType::f32, 0), 3);
  EXPECT_EQ(found.what, What::sample);
  EXPECT_EQ(found.rank, 2);
  EXPECT_EQ(found.row, 1);
  EXPECT_EQ(found.sample, 9);
}

TEST(NonFiniteSearch, NamesTheOperationOfAnOverflowBackwardInFp16) {
  const testing::ScratchFolder folder;
  for (const bool gpt : {false, true})
    for (const int stage : {0, 3})
      for (const int ranks : {1, 3}) {
        const Task task = gpt ? testing::gpt_task(folder) : testing::mlp_task();
        EngineOptions options = options_for(task, DType::f16, stage);
        options.scaler = testing::dynamic_scaler(40);
        const NonFinite found = found_in(testing::cpu_place, task, options, ranks);
        SCOPED_TRACE(fmt::format("{} stage {} ranks {}", gpt, stage, ranks));
        EXPECT_EQ(found.what, What::gradient);
        EXPECT_EQ(found.backward, 1);
        EXPECT_EQ(op_name(found, task, options), gpt ? "head_loss" : "cross_entropy");
        EXPECT_EQ(found.rank, 0);
        EXPECT_EQ(found.row, 0);
        EXPECT_EQ(found.position, gpt ? 0 : -1);
      }
}

TEST(NonFiniteSearch, KnowsASumThatOverflowsOverRanks) {
  // All ranks the same samples, and a loss scale that doubles until the sum overflows: what one rank adds is then less
  // than the largest number by a half at least.
  Task task = testing::mlp_task();
  for (const int stage : {0, 1, 3}) {
    bool met = false;
    for (int power = 110; power < 140 && !met; ++power) {
      EngineOptions options = options_for(task, DType::f32, stage);
      options.scaler.initial_scale = std::exp2(power);
      std::vector<NonFinite> found(3);
      testing::on_ranks(testing::cpu_place, 3, [&](comm::Communicator& comm, const Place& where) {
        const auto dataset = task.dataset();
        const auto model = task.model();
        Engine engine(*model, comm, where, options);
        data::HostBatch batch;
        dataset->train_batch(0, 4, batch);
        engine.forward(batch);
        engine.backward();
        engine.step();
        const FinishedStep step = engine.results().back();
        if (step.skipped == 0) return;
        if (comm.rank() == 0) met = true;
        found[static_cast<std::size_t>(comm.rank())] =
            engine.find_non_finite(step, [&](int) -> const data::HostBatch& { return batch; });
      });
      for (const NonFinite& one : found) EXPECT_EQ(one.what, met ? What::sum : What::nothing) << "stage " << stage;
    }
    EXPECT_TRUE(met) << "stage " << stage;
  }
}

TEST(NonFiniteSearch, FindsNothingWhereNothingIsWrongWithTheNumbers) {
  const Task task = testing::mlp_task();
  for (const int stage : {0, 3}) {
    const EngineOptions options = options_for(task, DType::f32, stage);
    const NonFinite found = found_in(testing::cpu_place, task, options, 3, 1, [](Engine& engine) {
      if (engine.comm().rank() == 1) engine.poison_gradient(0);
    });
    EXPECT_EQ(found.what, What::nothing);
    EXPECT_NE(text_of(found, task, options, 3).find("everything is finite on all 3 ranks"), std::string::npos);
  }
}

TEST(NonFiniteSearch, LeavesNoTraceInTraining) {
  const testing::ScratchFolder folder;
  for (const TestPlace& place : {testing::cpu_place, testing::emulated_place})
    for (const int stage : {0, 3}) {
      const Task task = testing::gpt_task(folder);
      std::vector<testing::Outcome> plain, searched;
      for (const bool search : {false, true}) {
        testing::TrainingRun run{task, options_for(task, DType::f16, stage, 2), 2, place.steps(12, 6)};
        run.options.scaler = testing::dynamic_scaler(26, 2);  // overflows at first
        const auto dataset = task.dataset();
        int searches = 0;
        if (search)
          run.after_step = [&](Engine& engine, std::int64_t step) {
            // Whether a step was skipped is known when it is drained; of others the search must find nothing to keep.
            engine.drain();
            const StepState state = engine.read_state();
            StepResult result;
            result.step = step;
            result.scale = state.scale;
            data::HostBatch batch;
            (void)engine.find_non_finite(result, samples_of(engine, *dataset, step, batch));
            if (engine.comm().rank() == 0) ++searches;
          };
        (search ? searched : plain) = testing::train_on(place, run);
        EXPECT_EQ(searches, search ? run.steps : 0);
      }
      for (std::size_t r = 0; r < plain.size(); ++r) {
        EXPECT_EQ(plain[r].losses(), searched[r].losses()) << place.name();
        EXPECT_EQ(plain[r].scales(), searched[r].scales());
        EXPECT_EQ(plain[r].skips(), searched[r].skips());
        EXPECT_EQ(plain[r].master, searched[r].master);
      }
    }
}

}  // namespace
}  // namespace lockstep::engine
