#include "run/trainer.hpp"
#include "files/durable_file.hpp"
#include "run/resume_proof.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "files/durable_folder.hpp"
#include "job/batch.hpp"
#include "kernels/decide/decide_rule.hpp"
#include "run/checkpoint_store.hpp"
#include "run/run_folder.hpp"
#include "run/run_starts.hpp"
#include "run/stop_signals.hpp"
#include "tests/run/asked.hpp"
#include "tests/support/event_file.hpp"
#include "tests/support/source_dir.hpp"
#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::error_text;
using testing::ScratchFolder;

const char* mlp_job = R"(
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 400}
run: {steps: 20, seed: 3, eval_every: 10, checkpoint: {every: 10, keep_last: 5}}
train_batch_size: 12
train_micro_batch_size_per_gpu: 2
optimizer: {type: AdamW, params: {lr: 0.01}}
scheduler: {type: WarmupLR, params: {warmup_max_lr: 0.01, warmup_num_steps: 8}}
parameter_groups: [{match: ["*.bias"], weight_decay: 0.0}]
)";

const char* gpt_job = R"(
model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 32, block_size: 16}
data: {type: text, path: text.txt, tokenizer: char}
run: {steps: 20, seed: 3, eval_every: 10, checkpoint: {every: 10, keep_last: 5}}
train_batch_size: 8
train_micro_batch_size_per_gpu: 2
optimizer: {type: AdamW, params: {lr: 0.005}}
scheduler: {type: WarmupLR, params: {warmup_max_lr: 0.005, warmup_num_steps: 8}}
)";

const char* fp16_block = R"(
fp16: {enabled: true, initial_scale_power: 28, loss_scale_window: 4, hysteresis: 1}
)";

/// Jobs whose runs go into one scratch folder; whatever the runs print is swallowed.
class Trainer : public ::testing::Test {
 protected:
  void SetUp() override { testing::write_text(folder_ / "text.txt", testing::made_up_text()); }

  /// Keeps what is printed while it lives.
  class Quiet {
   public:
    explicit Quiet(std::string& text) : text_(text) {
      ::testing::internal::CaptureStdout();
      ::testing::internal::CaptureStderr();
    }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;
    ~Quiet() { text_ = ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr(); }

   private:
    std::string& text_;
  };

  [[nodiscard]] job::JobConfig job(const std::string& text, const std::string& name) const {
    return job::load_job_text("job.yaml", text, folder_.path().string(),
                              {"run.name=" + name, "run.output_dir=" + (folder_ / "runs")})
        .config;
  }
  static TrainResult train_on(comm::Communicator& comm, const job::JobConfig& job, const std::string& resume) {
    const auto device = make_cpu_device();
    RankContext context{.comm = comm,
                        .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                        .world_source = "comm.ranks",
                        .summary = "test ranks"};
    return train({.config = job, .schedule = job::make_schedule(job), .path = {}, .deepspeed = {}, .warnings = {}},
                 resume, context);
  }
  TrainResult run(const job::JobConfig& job, int ranks, const std::string& resume = "auto",
                  const comm::LocalOptions& options = {}) {
    const Quiet quiet(output_);
    TrainResult result;
    comm::run_ranks(
        ranks,
        [&](comm::Communicator& comm) {
          const TrainResult own = train_on(comm, job, resume);
          if (comm.rank() == 0) result = own;
        },
        options);
    return result;
  }
  /// metrics.jsonl without what depends on the clock.
  static std::vector<json> lines(const job::JobConfig& job) {
    std::vector<json> result;
    std::ifstream in(run_folder(job) + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      json parsed = json::parse(line);
      for (const char* key : {"step_ms", "tokens_per_s", "samples_per_s", "memory_bytes"}) parsed.erase(key);
      result.push_back(parsed);
    }
    return result;
  }
  static void expect_same_lines(const std::vector<json>& a, const std::vector<json>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i], b[i]) << "line " << i + 1;
  }
  static void expect_close_losses(const std::vector<json>& a, const std::vector<json>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double x = a[i].at("loss"), y = b[i].at("loss");
      // Another order of fp32 sums, over the steps of these short runs.
      EXPECT_NEAR(x, y, 1e-5 * y) << "line " << i + 1;
    }
  }
  [[nodiscard]] const ScratchFolder& folder() const { return folder_; }
  /// What the last run printed.
  [[nodiscard]] const std::string& output() const { return output_; }
  [[nodiscard]] std::string& printed() { return output_; }

 private:
  ScratchFolder folder_;
  std::string output_;
};

TEST_F(Trainer, ClassifiersReportTheShareOfRightAnswers) {
  const job::JobConfig config = job(mlp_job, "accuracy");
  const TrainResult result = run(config, 2);

  ASSERT_TRUE(result.val_accuracy.has_value());
  // 40 validation points of four well separated clusters.
  EXPECT_GT(*result.val_accuracy, 0.5);
  EXPECT_LE(*result.val_accuracy, 1.0);
  EXPECT_EQ(*result.val_accuracy * 40, std::round(*result.val_accuracy * 40));
  const std::vector<json> all = lines(config);
  EXPECT_FALSE(all[0].contains("val_accuracy"));
  EXPECT_EQ(all[19].at("val_accuracy").get<double>(), *result.val_accuracy);
  EXPECT_NE(output().find(fmt::format(", val_accuracy {:.4f} (40 validation samples)", *result.val_accuracy)),
            std::string::npos)
      << output();
  EXPECT_FALSE(run(job(gpt_job, "language"), 1).val_accuracy.has_value());
}

const char* csv_job = R"(
model: {type: mlp, hidden: []}
data: {type: csv, path: line.csv, target: y, task: regression, standardize: false}
run: {steps: 300, seed: 3, eval_every: 100, checkpoint: {every: 100}}
train_batch_size: 16
optimizer: {type: SGD, params: {lr: 0.1}}
)";

TEST_F(Trainer, ALinearLayerLearnsALine) {
  std::string text = "a,b,y\n";
  for (int i = 0; i < 200; ++i) {
    const double a = std::sin(i * 0.7), b = std::cos(i * 1.3);
    text += fmt::format("{},{},{}\n", a, b, 3 * a - 2 * b + 0.5);
  }
  testing::write_text(folder() / "line.csv", text);
  const job::JobConfig config = job(csv_job, "line");
  const TrainResult result = run(config, 2);

  EXPECT_LT(result.val_loss.value(), 1e-6);
  EXPECT_FALSE(result.val_accuracy.has_value());
  // The first loss is the mean square of what a model near nothing misses: of the order of (9 + 4) / 2.
  EXPECT_GT(lines(config)[0].at("loss").get<double>(), 1.0);
}

TEST_F(Trainer, DropoutGoesOnWithTheSameBits) {
  std::string thinned = gpt_job;
  thinned.replace(thinned.find("block_size: 16"), 14, "block_size: 16, embd_pdrop: 0.2, resid_pdrop: 0.3");
  const job::JobConfig whole = job(thinned, "thinned");
  run(whole, 2);
  job::JobConfig half = job(thinned, "thinned_half");
  half.run.steps = 10;
  run(half, 2);
  half.run.steps = 20;
  run(half, 2);
  expect_same_lines(lines(half), lines(whole));
  EXPECT_NE(lines(whole)[0].at("loss"), [&] {
    const job::JobConfig plain = job(gpt_job, "not_thinned");
    run(plain, 2);
    return lines(plain)[0].at("loss");
  }());
}

TEST_F(Trainer, TheSameJobTwiceGivesTheSameBits) {
  for (const char* text : {mlp_job, gpt_job}) {
    for (const int ranks : {1, 2}) {
      const std::string name = (text == mlp_job ? "mlp" : "gpt") + std::to_string(ranks);
      const job::JobConfig first = job(text, name + "a"), second = job(text, name + "b");
      const TrainResult result = run(first, ranks);
      run(second, ranks);
      EXPECT_EQ(result.steps, 20);
      EXPECT_EQ(result.updates, 20);
      EXPECT_FALSE(result.was_complete);
      ASSERT_TRUE(result.val_loss.has_value());
      const auto a = lines(first);
      ASSERT_EQ(a.size(), 20U);
      expect_same_lines(a, lines(second));
      EXPECT_LT(a.back().at("loss").get<double>(), a.front().at("loss").get<double>());
      EXPECT_EQ(a.back().at("val_loss").get<double>(), *result.val_loss);
    }
  }
}

TEST_F(Trainer, MetricsHaveTheirKeys) {
  const job::JobConfig job_mlp = job(mlp_job, "keys_mlp"), job_gpt = job(gpt_job, "keys_gpt");
  run(job_mlp, 1);
  run(job_gpt, 1);
  for (const job::JobConfig& each : {job_mlp, job_gpt}) {
    const std::string rate = each.model.type == "mlp" ? "samples_per_s" : "tokens_per_s";
    std::ifstream in(run_folder(each) + "/metrics.jsonl");
    std::int64_t step = 0;
    for (std::string text; std::getline(in, text);) {
      const json line = json::parse(text);
      std::set<std::string> keys, expected = {"step",      "update",     "loss",    "loss_bits", "lr",
                                              "grad_norm", "loss_scale", "skipped", rate,        "step_ms"};
      for (const auto& item : line.items()) keys.insert(item.key());
      if (++step % 10 == 0) {
        expected.insert({"val_loss", "memory_bytes"});
        if (each.model.type == "mlp") expected.insert("val_accuracy");
      }
      EXPECT_EQ(keys, expected);
      EXPECT_EQ(line["step"], step);
      EXPECT_EQ(line["update"], step);
      EXPECT_EQ(line["lr"].size(), each.parameter_groups.size() + 1);
      EXPECT_EQ(line["loss_scale"], 1.0);
      EXPECT_GT(line[rate].get<double>(), 0);
      EXPECT_GT(line["step_ms"].get<double>(), 0);
      EXPECT_GT(line["grad_norm"].get<double>(), 0);
    }
    EXPECT_EQ(step, 20);
  }
  // The folder is as documented, and its job file loads to the same job.
  const std::string folder = run_folder(job_gpt);
  EXPECT_EQ(job::load_job(folder + "/job.yaml").config, job_gpt);
  EXPECT_TRUE(fs::exists(folder + "/checkpoints/step-10/manifest.json"));
  EXPECT_TRUE(fs::exists(folder + "/checkpoints/step-20/manifest.json"));
}

TEST_F(Trainer, AResumedRunRepeatsTheLinesOfAnUninterruptedOne) {
  for (const std::string& text : {std::string(mlp_job), std::string(gpt_job), std::string(gpt_job) + fp16_block,
                                  std::string(mlp_job) + "bf16: {enabled: true}\n"}) {
    static int number = 0;
    const job::JobConfig whole = job(text, "whole" + std::to_string(++number));
    run(whole, 2);
    const auto expected = lines(whole);
    ASSERT_EQ(expected.size(), 20U);
    // As after a crash at step 20: the last checkpoint is of step 10, the lines go further.
    fs::remove_all(run_folder(whole) + "/checkpoints/step-20");
    const TrainResult result = run(whole, 2);
    EXPECT_FALSE(result.was_complete);
    expect_same_lines(lines(whole), expected);

    // As after a stop at step 10.
    job::JobConfig half = job(text, "half" + std::to_string(number));
    half.run.steps = 10;
    run(half, 2);
    EXPECT_EQ(lines(half).size(), 10U);
    half.run.steps = 20;
    run(half, 2);
    expect_same_lines(lines(half), expected);

    if (whole.fp16.enabled) {
      // The stretch before and after the checkpoint must both have seen the scaler at work, by its rule.
      StepState state;
      state.scale = std::exp2(28);
      state.hysteresis = 1;
      const ScalerConfig config = testing::dynamic_scaler(28, 4);
      int skipped = 0;
      double lr = -1;
      for (const json& line : expected) {
        EXPECT_EQ(line.at("loss_scale").get<double>(), state.scale);
        const bool skip = line.at("skipped").get<bool>();
        ASSERT_TRUE(advance_scaler(config, skip, state));
        if (skip) {
          ++skipped;
          if (lr >= 0) {
            EXPECT_GE(line.at("lr")[0].get<double>(), lr);
          }
        }
        lr = line.at("lr")[0].get<double>();
        EXPECT_EQ(line.at("update").get<int>(), line.at("step").get<int>() - skipped);
      }
      EXPECT_GT(skipped, 2);
      EXPECT_LT(skipped, 15);
    }
  }
}

/// Optimizers beside AdamW, with rates at which clusters are told apart within 60 steps.
const std::vector<std::string> other_optimizers = {
    "{type: SGD, params: {lr: 0.1, momentum: 0.9}}", "{type: Lion, params: {lr: 0.003, weight_decay: 0.01}}",
    "{type: Adagrad, params: {lr: 0.05, initial_accumulator_value: 0.01}}",
    "{type: Lamb, params: {lr: 0.05, weight_decay: 0.01}}", "{type: Muon, params: {lr: 0.03, weight_decay: 0.01}}"};

std::string clusters_job(const std::string& optimizer, const std::string& more) {
  return R"(
model: {type: mlp, hidden: [16, 12]}
data: {type: clusters, classes: 4, features: 8, samples: 400, noise: 0.3}
run: {steps: 60, seed: 3, eval_every: 60, checkpoint: {every: 30, keep_last: 5}}
train_batch_size: 12
train_micro_batch_size_per_gpu: 2
parameter_groups: [{match: ["*.bias"], weight_decay: 0.0, lr: 0.01}]
scheduler: {type: LinearLR, params: {start_factor: 0.5, total_iters: 20}}
optimizer: )" +
         optimizer + "\n" + more;
}

TEST_F(Trainer, EveryOptimizerLearnsAndGoesOnFromACheckpointWithTheSameBits) {
  int number = 0;
  for (const std::string& optimizer : other_optimizers)
    for (const char* more : {"", "bf16: {enabled: true}\n", "fp16: {enabled: true, initial_scale_power: 10}\n"})
      for (const int ranks : {1, 2}) {
        SCOPED_TRACE(optimizer + " " + more + std::to_string(ranks));
        const job::JobConfig whole = job(clusters_job(optimizer, more), "optimizer" + std::to_string(++number));
        run(whole, ranks);
        const auto expected = lines(whole);
        ASSERT_EQ(expected.size(), 60U);
        EXPECT_LT(expected.back().at("loss").get<double>(), 0.5 * expected.front().at("loss").get<double>());
        EXPECT_LT(expected.back().at("val_loss").get<double>(), 0.5);
        fs::remove_all(run_folder(whole) + "/checkpoints/step-60");
        run(whole, ranks);
        expect_same_lines(lines(whole), expected);
      }
}

TEST_F(Trainer, AnotherOptimizersMomentsAreRefused) {
  const auto with = [&](const std::string& type) {
    return job(clusters_job("{type: " + type + ", params: {lr: 0.003}}", ""), "moments");
  };
  run(with("AdamW"), 1);
  for (const char* type : {"Lion", "Adagrad"}) {
    job::JobConfig other = with(type);
    other.run.steps = 70;
    const std::string text = error_text(ErrorKind::checkpoint, [&] { run(other, 1); });
    EXPECT_NE(text.find("optimizer.type"), std::string::npos) << text;
  }
}

/// Evaluates every third step and saves every seventh; the rate is so high that val_loss soon stops improving.
const char* plateau_job = R"(
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 400}
run: {steps: 40, seed: 3, eval_every: 3, checkpoint: {every: 7, keep_last: 0}, determinism: invariant}
train_batch_size: 12
train_micro_batch_size_per_gpu: 2
optimizer: {type: SGD, params: {lr: 4}}
scheduler: {type: ReduceLROnPlateau, params: {patience: 1, factor: 0.5, cooldown: 1, threshold: 0.05}}
)";

std::set<double> rates_of(const std::vector<json>& lines) {
  std::set<double> rates;
  for (const json& line : lines) rates.insert(line.at("lr")[0].get<double>());
  return rates;
}

TEST_F(Trainer, APlateauGoesOnFromEveryCheckpointOnAnyNumberOfRanks) {
  const job::JobConfig whole = job(plateau_job, "plateau");
  run(whole, 2);
  const auto expected = lines(whole);
  ASSERT_GE(rates_of(expected).size(), 4U) << "the schedule must have acted several times";
  EXPECT_NE(output().find("val_loss has stopped improving; lr 4 -> 2"), std::string::npos) << output();

  const int ranks[] = {1, 2, 3, 6};
  for (int step = 35, i = 0; step > 0; step -= 7, ++i) {
    run(whole, ranks[i % 4], run_folder(whole) + "/checkpoints/step-" + std::to_string(step));
    expect_same_lines(lines(whole), expected);
  }
}

TEST_F(Trainer, AnEvaluationThatOnlyTheEndOfARunAddsDecidesNothing) {
  const job::JobConfig whole = job(plateau_job, "longer");
  run(whole, 1);
  for (const std::int64_t steps : {10, 20, 31, 40}) {
    job::JobConfig part = job(plateau_job, "shorter");
    part.run.steps = steps;
    run(part, 1);
    auto expected = lines(whole), there = lines(part);
    ASSERT_EQ(there.size(), static_cast<std::size_t>(steps));
    for (std::size_t i = 0; i < there.size(); ++i) EXPECT_EQ(there[i].at("lr"), expected[i].at("lr")) << i;
  }
}

TEST_F(Trainer, AnotherLearningRateStartsAPlateauAnew) {
  job::JobConfig first = job(plateau_job, "anew");
  first.run.steps = 28;
  run(first, 1);
  job::JobConfig second = job(plateau_job, "anew");
  second.optimizer.sgd.lr = 0.5;
  run(second, 1);
  EXPECT_NE(output().find("the optimizer's learning rate has changed"), std::string::npos) << output();
  EXPECT_EQ(lines(second)[28].at("lr")[0], 0.5);
}

TEST_F(Trainer, APlateauNeedsValidationSamples) {
  job::JobConfig none = job(plateau_job, "none");
  none.data.clusters.validation_fraction = 0;
  const std::string text = error_text(ErrorKind::config, [&] { run(none, 1); });
  EXPECT_NE(text.find("give data.validation_fraction"), std::string::npos) << text;
}

TEST_F(Trainer, TheCheckpointOutlivesAChangeOfRanks) {
  const job::JobConfig one = job(mlp_job, "one");
  run(one, 1);
  const auto expected = lines(one);
  for (const int ranks : {2, 3, 6}) {
    fs::remove_all(run_folder(one) + "/checkpoints/step-20");
    run(one, ranks);
    expect_close_losses(lines(one), expected);
  }
  fs::remove_all(run_folder(one) + "/checkpoints/step-20");
  for (const int ranks : {4, 5}) {
    const std::string text = error_text(ErrorKind::checkpoint, [&] { run(one, ranks); });
    EXPECT_NE(text.find("1, 2, 3, 6"), std::string::npos) << text;
    EXPECT_NE(text.find(std::to_string(ranks) + " ranks (comm.ranks)"), std::string::npos) << text;
  }
}

TEST_F(Trainer, ACompleteRunIsComparedBeforeItIsCalledComplete) {
  const job::JobConfig finished = job(mlp_job, "compared");
  run(finished, 2);
  const std::string metrics = testing::text_of(run_folder(finished) + "/metrics.jsonl");
  job::JobConfig wider = finished, other_data = finished, sgd = finished, other_seed = finished;
  wider.model.mlp.hidden.back() += 1;
  other_data.data.clusters.noise *= 2;
  sgd.optimizer = job::load_job_text("job.yaml",
                                     "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 1}\n"
                                     "train_batch_size: 2\noptimizer: {type: SGD, params: {lr: 0.1, momentum: 0.9}}\n",
                                     "/")
                      .config.optimizer;
  other_seed.run.seed = 99;
  const auto refused = [&](const job::JobConfig& config) {
    return error_text(ErrorKind::checkpoint, [&] { run(config, 2); });
  };
  const auto expect_refused = [&](const job::JobConfig& config, const char* why, const char* change) {
    const std::string text = refused(config);
    EXPECT_NE(text.find(why), std::string::npos) << text;
    EXPECT_NE(text.find(change), std::string::npos) << text;
    EXPECT_NE(text.find("With the old values the run goes on"), std::string::npos) << text;
  };
  expect_refused(wider, "has the shape", "model.hidden: [16] -> [17]");
  expect_refused(other_data, "trained on other data", "data.noise: 0.5 -> 1");
  expect_refused(sgd, "no momentum_buffer of", "optimizer.type: AdamW -> SGD");
  const std::string seeds = refused(other_seed);
  EXPECT_NE(seeds.find(fmt::format("run.seed {}, this job has run.seed 99", finished.run.seed)), std::string::npos)
      << seeds;
  EXPECT_EQ(testing::text_of(run_folder(finished) + "/metrics.jsonl"), metrics);

  // Another batch is no reason to refuse: the checkpoint's stays, and that is said.
  job::JobConfig other_batch = finished;
  other_batch.train_batch_size = 24;
  EXPECT_TRUE(run(other_batch, 2).was_complete);
  EXPECT_NE(output().find("train_batch_size 12 and micro-batch 2 stay"), std::string::npos) << output();
  EXPECT_NE(output().find("changed since: train_batch_size: 12 -> 24"), std::string::npos) << output();
}

TEST_F(Trainer, AfterARefusalTheOldValuesGoOnAsIfNothingHadHappened) {
  const job::JobConfig whole = job(mlp_job, "undisturbed");
  run(whole, 2);
  job::JobConfig config = job(mlp_job, "refused");
  config.run.steps = 10;
  run(config, 2);
  config.run.steps = 20;
  job::JobConfig deeper = config;
  deeper.model.mlp.hidden.push_back(8);
  (void)error_text(ErrorKind::checkpoint, [&] { run(deeper, 2); });

  run(config, 2);

  expect_same_lines(lines(config), lines(whole));
}

TEST_F(Trainer, WhatAResumeTakesInItsStrideIsSpelledOut) {
  job::JobConfig config = job(mlp_job, "stride");
  config.run.steps = 10;
  run(config, 1);
  config.run.steps = 20;
  config.optimizer.type = "Adam";
  config.optimizer.adam.eps = 1e-6;

  run(config, 1);

  EXPECT_NE(output().find("changed since: optimizer.type: AdamW -> Adam"), std::string::npos) << output();
  EXPECT_NE(output().find("changed since: optimizer.params.eps: 1e-08 -> 1e-06"), std::string::npos) << output();
  EXPECT_NE(output().find("changed since: run.steps: 10 -> 20"), std::string::npos) << output();
}

TEST_F(Trainer, AnotherPrecisionBeginsWithALossScaleOfItsOwn) {
  const std::string half = std::string(mlp_job) + "fp16: {enabled: true, initial_scale_power: 12}\n";
  const auto last_of = [&](const std::string& text, std::int64_t steps) {
    job::JobConfig config = job(text, "precision");
    config.run.steps = steps;
    run(config, 2);
    return lines(config).back();
  };
  const auto said = [&](const std::string& text) { return output().find(text) != std::string::npos; };

  EXPECT_EQ(last_of(half, 5).at("loss_scale"), 4096.0);
  EXPECT_EQ(last_of(mlp_job, 10).at("loss_scale"), 1.0);
  EXPECT_TRUE(said("fp16 with a dynamic loss scale -> fp32: the checkpoint's loss scale 4096 is dropped")) << output();
  EXPECT_TRUE(said("changed since: fp16.enabled: true -> false")) << output();
  const json back = last_of(half, 15);
  EXPECT_EQ(back.at("loss_scale"), 4096.0) << "and not 1, at which small gradients vanish";
  EXPECT_EQ(back.at("update"), 15) << "nothing else begins anew";
  EXPECT_TRUE(said("fp32 -> fp16 with a dynamic loss scale: the checkpoint's loss scale 1 is dropped")) << output();
  (void)last_of(half, 20);
  EXPECT_FALSE(said("is dropped")) << output();
}

TEST_F(Trainer, ABatchFromTheCheckpointIsNotCalledGiven) {
  job::JobConfig config = job(mlp_job, "origin");
  config.run.steps = 10;
  run(config, 2);
  EXPECT_NE(output().find("2 micro (given)"), std::string::npos) << output();
  config.run.steps = 20;

  run(config, 2);

  EXPECT_NE(output().find("2 ranks (comm.ranks) x 2 micro (from the checkpoint) x 3 accumulation (derived) = 12"),
            std::string::npos)
      << output();
  EXPECT_EQ(output().find("(given)"), std::string::npos) << output();
}

TEST_F(Trainer, WithoutValidationSamplesThereIsNoValLossAndThatIsSaidOnce) {
  job::JobConfig config = job(mlp_job, "unvalidated");
  config.data.clusters.validation_fraction = 0;

  const TrainResult result = run(config, 2);

  EXPECT_EQ(result.val_loss, std::nullopt);
  for (const json& line : lines(config)) EXPECT_FALSE(line.contains("val_loss")) << line;
  const std::size_t note = output().find("no validation samples (data.validation_fraction 0)");
  EXPECT_NE(note, std::string::npos) << output();
  const std::size_t named = output().find("val_loss");
  EXPECT_GT(named, note) << output();
  EXPECT_EQ(output().find("val_loss", named + 1), std::string::npos) << "once: " << output();
}

TEST_F(Trainer, AFinishedRunIsLeftAlone) {
  const job::JobConfig config = job(mlp_job, "finished");
  run(config, 2);
  const std::string before = testing::text_of(run_folder(config) + "/metrics.jsonl");
  const TrainResult result = run(config, 2);
  EXPECT_TRUE(result.was_complete);
  EXPECT_EQ(result.steps, 20);
  EXPECT_EQ(result.updates, 20);
  EXPECT_EQ(testing::text_of(run_folder(config) + "/metrics.jsonl"), before);
  EXPECT_NE(output().find("complete at step 20"), std::string::npos);
}

TEST_F(Trainer, OtherDataUnderTheSameNameAreRefused) {
  job::JobConfig config = job(gpt_job, "other_data");
  config.run.steps = 4;
  run(config, 1);
  config.run.steps = 8;
  std::string text = testing::made_up_text();
  std::swap(text[10], text[text.size() / 2]);  // the same length and symbols
  testing::write_text(config.data.text.path, text);
  const std::string refused = error_text(ErrorKind::checkpoint, [&] { run(config, 1); });
  EXPECT_NE(refused.find("trained on other data"), std::string::npos) << refused;
  EXPECT_NE(refused.find("--resume never"), std::string::npos) << refused;

  testing::write_text(config.data.text.path, testing::made_up_text());
  EXPECT_EQ(run(config, 1).steps, 8);
}

TEST_F(Trainer, NeverMovesTheOldRunAside) {
  const job::JobConfig config = job(mlp_job, "again");
  run(config, 1, "never");
  EXPECT_FALSE(fs::exists(run_folder(config) + ".old-1")) << "there was nothing to move";
  const std::string before = testing::text_of(run_folder(config) + "/metrics.jsonl");
  const TrainResult result = run(config, 2, "never");
  EXPECT_FALSE(result.was_complete);
  EXPECT_EQ(testing::text_of(run_folder(config) + ".old-1/metrics.jsonl"), before);
  EXPECT_EQ(lines(config).size(), 20U);
  EXPECT_NE(output().find("again.old-1"), std::string::npos) << "it says where the old run is";
  run(config, 1, "never");
  EXPECT_TRUE(fs::exists(run_folder(config) + ".old-2/metrics.jsonl"));
}

TEST_F(Trainer, ResumesFromACheckpointByItsPath) {
  const job::JobConfig source = job(mlp_job, "source");
  run(source, 1);
  const job::JobConfig target = job(mlp_job, "target");
  run(target, 1, run_folder(source) + "/checkpoints/step-10");
  const auto expected = lines(source);
  expect_same_lines(lines(target), {expected.begin() + 10, expected.end()});
  const std::string text =
      error_text(ErrorKind::checkpoint, [&] { run(job(mlp_job, "none"), 1, folder() / "nowhere"); });
  EXPECT_NE(text.find("nowhere"), std::string::npos) << text;
}

TEST_F(Trainer, ARunsFolderMeansItsNewestCheckpoint) {
  const job::JobConfig source = job(mlp_job, "newest_source"), target = job(mlp_job, "newest_target");
  run(source, 1);
  fs::remove_all(run_folder(source) + "/checkpoints/step-20");

  run(target, 1, run_folder(source));

  EXPECT_NE(output().find("resume    from " + run_folder(source) + "/checkpoints/step-10"), std::string::npos)
      << output();
  const auto all = lines(source);
  expect_same_lines(lines(target), {all.begin() + 10, all.end()});

  // The run's own folder: no new history.
  run(source, 1, run_folder(source));
  expect_same_lines(lines(source), all);
  EXPECT_FALSE(fs::exists(run_folder(source) + ".old-1"));

  const std::string empty = folder() / "runs/empty";
  fs::create_directories(empty + "/checkpoints");
  const std::string text = error_text(ErrorKind::checkpoint, [&] { run(target, 1, empty); });
  EXPECT_NE(text.find(empty + ": this run has no checkpoint yet"), std::string::npos) << text;
}

TEST_F(Trainer, GoingOnFromAnOlderStepMovesNewerOnesAside) {
  job::JobConfig config = job(mlp_job, "older");
  config.run.checkpoint = {.every = 5, .keep_last = 1};
  config.run.checkpoint.keep_last = 0;
  run(config, 1);
  const auto expected = lines(config);
  const std::string checkpoints = run_folder(config) + "/checkpoints";
  const std::string metrics = testing::text_of(run_folder(config) + "/metrics.jsonl");

  config.run.checkpoint.keep_last = 1;
  run(config, 1, checkpoints + "/step-5");
  EXPECT_NE(output().find("going on from step 5; what was saved after it (step-10, step-15, step-20) is now in " +
                          checkpoints + "/aside-1"),
            std::string::npos)
      << output();
  expect_same_lines(lines(config), expected);
  EXPECT_EQ(files::names_in(checkpoints), (std::vector<std::string>{"aside-1", "step-20"}));
  EXPECT_EQ(files::names_in(checkpoints + "/aside-1"),
            (std::vector<std::string>{"metrics.jsonl", "step-10", "step-15", "step-20"}));
  EXPECT_EQ(testing::text_of(checkpoints + "/aside-1/metrics.jsonl"), metrics);
  EXPECT_EQ(*newest_checkpoint(checkpoints).path, checkpoints + "/step-20");
}

TEST_F(Trainer, ACheckpointFromElsewhereStartsANewFolder) {
  const job::JobConfig source = job(mlp_job, "elsewhere"), target = job(mlp_job, "taken");
  run(source, 1);
  run(target, 1);
  const std::string before = testing::text_of(run_folder(target) + "/metrics.jsonl");
  run(target, 1, run_folder(source) + "/checkpoints/step-10");
  EXPECT_NE(output().find("the run that was here is now " + run_folder(target) + ".old-1"), std::string::npos)
      << output();
  EXPECT_EQ(testing::text_of(run_folder(target) + ".old-1/metrics.jsonl"), before);
  const auto all = lines(source);
  expect_same_lines(lines(target), {all.begin() + 10, all.end()});

  // One that lies aside in the run's own folder is from elsewhere too.
  const std::string aside = run_folder(source) + "/checkpoints/aside-1";
  fs::create_directories(aside);
  fs::rename(run_folder(source) + "/checkpoints/step-10", aside + "/step-10");
  run(source, 1, aside + "/step-10");
  expect_same_lines(lines(source), {all.begin() + 10, all.end()});
  EXPECT_TRUE(fs::exists(run_folder(source) + ".old-1/checkpoints/aside-1/step-10/manifest.json"));
}

TEST_F(Trainer, ADamagedNewestCheckpointFallsBackToTheOneBefore) {
  const job::JobConfig config = job(mlp_job, "damaged");
  run(config, 2);
  const auto expected = lines(config);
  const std::string newest = run_folder(config) + "/checkpoints/step-20";
  fs::resize_file(newest + "/model-00001-of-00002.safetensors", 100);
  const std::string refused = error_text(ErrorKind::checkpoint, [&] { run(config, 2, newest); });
  EXPECT_NE(refused.find(newest + "/model-00001-of-00002.safetensors: is damaged"), std::string::npos)
      << "named, it is an error";

  run(config, 2);
  EXPECT_NE(output().find(newest + "/model-00001-of-00002.safetensors: is damaged"), std::string::npos) << output();
  EXPECT_NE(output().find("going on from the checkpoint before it"), std::string::npos) << output();
  EXPECT_NE(output().find("resume    from " + run_folder(config) + "/checkpoints/step-10"), std::string::npos);
  expect_same_lines(lines(config), expected);
  EXPECT_EQ(fs::file_size(run_folder(config) + "/checkpoints/aside-1/step-20/model-00001-of-00002.safetensors"), 100U);
}

TEST_F(Trainer, AResumeIsProvenByTheLossOfTheNextSamples) {
  for (const char* text : {mlp_job, gpt_job}) {
    const job::JobConfig config = job(text, text == mlp_job ? "proven_mlp" : "proven_gpt");
    run(config, 1);
    const std::string saved = run_folder(config) + "/checkpoints/step-10";
    run(config, 1, saved);
    EXPECT_NE(output().find("resume verified: loss bits "), std::string::npos) << output();
    run(config, 2, saved);
    EXPECT_NE(output().find("resume verified: loss bits "), std::string::npos) << "ranks do not matter: " << output();

    // What hashes cannot see: a checkpoint that is whole, but is not what the run was.
    json manifest = json::parse(testing::text_of(saved + "/manifest.json"));
    const double loss = manifest["next_loss"];
    const std::string metrics = testing::text_of(run_folder(config) + "/metrics.jsonl");
    const auto resume_with = [&](double other) {
      manifest["next_loss"] = other;
      manifest.erase("manifest_xxh3_128");
      manifest["manifest_xxh3_128"] = files::hash_of(manifest.dump());
      testing::write_text(saved + "/manifest.json", manifest.dump());
      run(config, 1, saved);
    };
    const std::string refused = error_text(ErrorKind::checkpoint, [&] { resume_with(loss * 1.01); });
    EXPECT_NE(refused.find("step-10: the samples that come next have loss " + fmt::format("{}", loss) + " now"),
              std::string::npos)
        << refused;
    EXPECT_EQ(testing::text_of(run_folder(config) + "/metrics.jsonl"), metrics) << "nothing was changed";
    resume_with(loss * (1 + 1e-7));
    EXPECT_NE(output().find("resume verified up to rounding: loss "), std::string::npos) << output();
    EXPECT_NE(output().find("equal bits were to be expected"), std::string::npos) << output();
  }
}

TEST(ResumeProof, AllowsForRoundingByTheNumbersThatAreComputedWith) {
  EXPECT_NE(resume_proof(2.0, 2.0, {.same_bits = true, .fp32 = true}, "c").find("4000000000000000"), std::string::npos);
  EXPECT_NE(resume_proof(2.0, 2.001, {.fp32 = true}, "c").find("5.0e-04"), std::string::npos);
  EXPECT_NE(resume_proof(2.0, 2.05, {.fp32 = false}, "c").find("up to rounding"), std::string::npos);
  EXPECT_NE(error_text(ErrorKind::checkpoint, [] { (void)resume_proof(2.0, 2.05, {.fp32 = true}, "c"); }), "");
  EXPECT_NE(error_text(ErrorKind::checkpoint, [] { (void)resume_proof(2.0, 2.2, {.fp32 = false}, "c"); }), "");
  EXPECT_NE(error_text(ErrorKind::checkpoint, [] { (void)resume_proof(2.0, {}, {.fp32 = true}, "c"); })
                .find("that is not finite"),
            std::string::npos);
}

TEST_F(Trainer, CheckpointsThatCannotBeUsedAreNotTakenForNone) {
  const job::JobConfig config = job(mlp_job, "unusable");
  run(config, 1);
  const std::string folder = run_folder(config), metrics = testing::text_of(folder + "/metrics.jsonl");
  const auto untouched = [&] { return testing::text_of(folder + "/metrics.jsonl") == metrics; };
  for (const char* step : {"step-10", "step-20"}) fs::remove(folder + "/checkpoints/" + step + "/manifest.json");
  std::string text = error_text(ErrorKind::checkpoint, [&] { run(config, 2); });
  EXPECT_NE(text.find("not one of the checkpoints there is whole"), std::string::npos) << text;
  EXPECT_TRUE(untouched());

  fs::rename(folder + "/checkpoints", folder + "/elsewhere");
  fs::create_symlink("checkpoints", folder + "/checkpoints");  // cannot be listed, like a folder without rights
  text = error_text(ErrorKind::checkpoint, [&] { run(config, 2); });
  EXPECT_NE(text.find("/checkpoints: cannot be listed"), std::string::npos) << text;
  EXPECT_TRUE(untouched());
}

TEST_F(Trainer, MetricsWithAStepThatIsNoNumberAreLeftAsTheyAre) {
  const job::JobConfig config = job(mlp_job, "odd_metrics");
  run(config, 1);
  fs::remove_all(run_folder(config) + "/checkpoints/step-20");
  const std::string metrics = run_folder(config) + "/metrics.jsonl";
  const std::string odd = "{\"step\":\"5\"}\n" + testing::text_of(metrics);
  testing::write_text(metrics, odd);
  const std::string text = error_text(ErrorKind::data, [&] { run(config, 2); });
  EXPECT_NE(text.find(metrics + " line 1: step is \"5\""), std::string::npos) << text;
  EXPECT_EQ(testing::text_of(metrics), odd);
}

TEST_F(Trainer, ASecondJobIsToldWhoHasTheFolder) {
  const job::JobConfig config = job(mlp_job, "locked");
  run(config, 1);
  const std::string metrics = testing::text_of(run_folder(config) + "/metrics.jsonl");
  const RunLock other(run_folder(config));
  for (const char* resume : {"auto", "never"}) {
    const std::string text = error_text(ErrorKind::environment, [&] { run(config, 2, resume); });
    EXPECT_NE(text.find(run_folder(config) + " is in use by pid " + std::to_string(getpid())), std::string::npos)
        << text;
  }
  EXPECT_EQ(testing::text_of(run_folder(config) + "/metrics.jsonl"), metrics);
  EXPECT_FALSE(fs::exists(run_folder(config) + ".old-1"));
}

TEST_F(Trainer, WhatAKilledJobLeftIsSweptAway) {
  job::JobConfig config = job(mlp_job, "swept");
  run(config, 1);
  const std::string checkpoints = run_folder(config) + "/checkpoints";
  fs::create_directories(checkpoints + "/.step-17.partial-0badcafe");
  fs::rename(checkpoints + "/step-20", checkpoints + "/.step-20.replaced-0badcafe");
  EXPECT_TRUE(run(config, 1).was_complete);
  EXPECT_EQ(files::names_in(checkpoints), (std::vector<std::string>{"step-10", "step-20"}));
}

TEST_F(Trainer, ASaveSlowerThanTheDeadlineGoesThrough) {
  const Asked asked("slow_save@seconds=2.5");
  job::JobConfig config = job(mlp_job, "slow_save");
  config.run.checkpoint.every = 0;
  const TrainResult result = run(config, 2, "auto", {.timeout = comm::Seconds(1.5)});
  EXPECT_EQ(result.steps, 20);
  EXPECT_EQ(files::names_in(run_folder(config) + "/checkpoints"), std::vector<std::string>{"step-20"});
}

TEST_F(Trainer, ASaveThatFailsEndsEveryRankWithItsKind) {
  const job::JobConfig config = job(mlp_job, "no_room");
  fs::create_directories(run_folder(config));
  testing::write_text(run_folder(config) + "/checkpoints", "in the way");
  std::atomic<int> told = 0;
  const Quiet quiet(printed());
  (void)error_text(ErrorKind::checkpoint, [&] {
    comm::run_ranks(3, [&](comm::Communicator& comm) {
      try {
        train_on(comm, config, "auto");
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::checkpoint) ++told;
        throw;
      }
    });
  });
  EXPECT_EQ(told, 3);
}

TEST_F(Trainer, SomeCheckpointsAreKept) {
  job::JobConfig config = job(mlp_job, "kept");
  config.run.checkpoint.every = 3;
  config.run.checkpoint.keep_last = 2;
  run(config, 2);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(run_folder(config) + "/checkpoints"))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names, (std::set<std::string>{"step-18", "step-20"}));
}

TEST_F(Trainer, ASignalStopsAllRanksAfterTheSameStepAndSaves) {
  const StopSignals signals;
  job::JobConfig config = job(mlp_job, "stopped");
  config.run.steps = 1000000;
  config.run.eval_every = 0;
  config.run.checkpoint.every = 0;
  const std::string metrics = run_folder(config) + "/metrics.jsonl";
  std::jthread stopper([&](const std::stop_token& token) {
    // Lines in the file: the run is in its loop.
    const auto started = [&] {
      std::error_code none;
      return fs::exists(metrics, none) && fs::file_size(metrics, none) > 1000;
    };
    while (!started() && !token.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!token.stop_requested()) ::kill(::getpid(), SIGTERM);  // to the process, as a launcher does
  });
  const std::string text = error_text(ErrorKind::preempted, [&] { run(config, 2); });
  stopper.request_stop();
  stopper.join();
  const auto stopped = lines(config);
  ASSERT_FALSE(stopped.empty());
  const auto last = stopped.back().at("step").get<std::int64_t>();
  EXPECT_LT(last, 1000000);
  EXPECT_NE(text.find(fmt::format("after step {}", last)), std::string::npos) << text;
  EXPECT_TRUE(fs::exists(fmt::format("{}/checkpoints/step-{}/manifest.json", run_folder(config), last)));

  // It goes on from there, and nobody can tell.
  config.run.steps = last + 5;
  EXPECT_EQ(run(config, 2).steps, last + 5);
  job::JobConfig whole = config;
  whole.run.name = "not_stopped";
  run(whole, 2);
  expect_same_lines(lines(config), lines(whole));
}

TEST_F(Trainer, AFolderThatCannotBeMadeIsNamed) {
  testing::write_text(folder() / "runs", "a file is in the way");
  for (const char* resume : {"auto", "never"}) {
    const std::string text = error_text(ErrorKind::environment, [&] { run(job(mlp_job, "a"), 2, resume); });
    EXPECT_NE(text.find(folder() / "runs/a"), std::string::npos) << text;
    EXPECT_NE(text.find("run.output_dir"), std::string::npos) << text;
  }
}

/// A first lr this large makes the parameters overflow, and every later gradient is bad.
const char* blown_up_job = R"(
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 400}
run: {steps: 6, eval_every: 0, checkpoint: {every: 0}}
train_batch_size: 8
gradient_clipping: 0
optimizer: {type: SGD, params: {lr: 1.0e+38}}
bf16: {enabled: true}
)";

TEST_F(Trainer, ABf16SkipNamesTheParameter) {
  const job::JobConfig config = job(blown_up_job, "bf16");
  run(config, 2);
  int skipped = 0;
  for (const json& line : lines(config)) skipped += line.at("skipped").get<bool>() ? 1 : 0;
  EXPECT_GT(skipped, 0);
  EXPECT_NE(output().find("non-finite gradient in layers."), std::string::npos) << output();
}

TEST_F(Trainer, TooManySkippedStepsInARowAreADivergence) {
  job::JobConfig config = job(blown_up_job, "skips");
  config.run.steps = 1000;
  config.run.max_skipped_steps = 7;
  const std::string text = error_text(ErrorKind::diverged, [&] { run(config, 2); });
  const auto written = lines(config);
  EXPECT_NE(text.find(fmt::format("step {}: the 7 steps up to here were all skipped", written.size())),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("run.max_skipped_steps"), std::string::npos) << text;
  EXPECT_NE(text.find("first non-finite gradient: layers."), std::string::npos) << text;
  for (std::size_t i = written.size() - 7; i < written.size(); ++i) EXPECT_TRUE(written[i].at("skipped")) << i;
  EXPECT_FALSE(written[written.size() - 8].at("skipped")) << "the seventh in a row, no earlier one";
  EXPECT_FALSE(fs::exists(run_folder(config) + fmt::format("/checkpoints/step-{}", written.size())));
}

TEST_F(Trainer, ARunOfWhichEveryStepIsSkippedIsADivergence) {
  // A fixed scale of 2^100 overflows fp16 at every step.
  const std::string text = std::string(mlp_job) + "fp16: {enabled: true, loss_scale: 1.2676506e+30}\n";
  const job::JobConfig config = job(text, "fixed");
  const std::string why = error_text(ErrorKind::diverged, [&] { run(config, 2); });
  EXPECT_NE(why.find("step 20: the 20 steps up to here were all skipped"), std::string::npos) << why;
  EXPECT_NE(why.find("first non-finite gradient: layers."), std::string::npos) << why;
}

TEST_F(Trainer, ALossScaleOnItsWayDownIsNoDivergence) {
  // From 2^60 it takes more than 20 steps to a scale at which a gradient is finite.
  const std::string text =
      std::string(mlp_job) + "fp16: {enabled: true, initial_scale_power: 60, loss_scale_window: 500, hysteresis: 1}\n";
  job::JobConfig config = job(text, "descent");
  EXPECT_EQ(run(config, 2).updates, 0);
  config.run.steps = 70;
  EXPECT_GT(run(config, 2).updates, 5) << "the default limit lets it come down";
}

TEST_F(Trainer, ATamperedRankStopsTheRun) {
  const Asked asked("desync@rank=1,step=4");
  const job::JobConfig config = job(mlp_job, "tampered");
  const std::string text = error_text(ErrorKind::desync, [&] { run(config, 3); });
  EXPECT_NE(text.find("step 5: rank 1"), std::string::npos) << text;
  EXPECT_LE(lines(config).size(), 5U);
}

/// What is left of a run after each file of tests/job/deepspeed that is accepted: it trained.
TEST_F(Trainer, EveryDeepSpeedFileThatIsAcceptedTrains) {
  const std::string files = source_dir() + "/tests/job/deepspeed";
  int trained = 0;
  for (const auto& entry : fs::directory_iterator(files)) {
    if (entry.path().extension() != ".json") continue;
    const std::string name = entry.path().stem().string();
    const std::string text =
        "model: {type: mlp, hidden: [8]}\ndata: {type: clusters, classes: 2, features: 4, samples: 64}\n"
        "run: {steps: 3}\ndeepspeed: " +
        name + ".json\n";
    job::JobConfig config;
    try {
      std::vector<std::string> overrides = {"run.name=" + name, "run.output_dir=" + (folder() / "runs")};
      config = job::load_job_text("job.yaml", text, files, overrides).config;
    } catch (const Error&) {
      continue;  // refused: tests/job looks at how
    }
    for (job::MonitorConfig* monitor : {&config.tensorboard, &config.csv_monitor})
      if (monitor->output_path) monitor->output_path = folder() / ("logs/" + name);
    const job::BatchSizes batch = job::resolve_batch(config.train_batch_size, config.train_micro_batch_size_per_gpu,
                                                     config.gradient_accumulation_steps, 1, "test");
    if (batch.accumulation > 64) config.train_batch_size = 64 * batch.micro;  // of two ranks, in seconds

    const TrainResult result = run(config, batch.accumulation % 2 == 0 ? 2 : 1);

    EXPECT_EQ(result.steps, 3) << name;
    for (const json& line : lines(config)) EXPECT_FALSE(line.at("loss").is_null()) << name << ": " << line;
    ++trained;
  }
  EXPECT_GE(trained, 15);
}

TEST_F(Trainer, MonitorsFollowARunThroughAResume) {
  const std::string monitors =
      std::string(mlp_job) + "tensorboard: {enabled: true}\ncsv_monitor: {enabled: true}\nwall_clock_breakdown: true\n";
  job::JobConfig first = job(monitors, "watched");
  run(first, 1);
  const std::string whole = output();
  const std::string lr_file = run_folder(first) + "/csv_monitor/Train_Samples_lr.csv";
  const std::string rows = testing::text_of(lr_file);
  const std::vector<json> metrics = lines(first);
  fs::remove_all(run_folder(first) + "/checkpoints/step-20");
  run(first, 1);  // goes on from step 10

  EXPECT_EQ(testing::text_of(lr_file), rows) << "cut back and written again";
  std::istringstream in(rows);
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "step,lr\r");
  for (std::size_t i = 0; std::getline(in, line); ++i)
    EXPECT_EQ(line, fmt::format("{},{}\r", (i + 1) * 12, metrics.at(i).at("lr").at(0).get<double>()));
  int files = 0;
  std::map<std::int64_t, float> losses;
  std::vector<std::int64_t> session_starts;
  for (const auto& entry : fs::directory_iterator(run_folder(first) + "/tensorboard")) {
    const testing::EventFile events(entry.path().string());
    ++files;
    session_starts.insert(session_starts.end(), events.session_starts.begin(), events.session_starts.end());
    for (const auto& [x, loss] : events.scalars.at("Train/Samples/train_loss")) losses[x] = loss;
    EXPECT_TRUE(events.scalars.contains("Train/Samples/elapsed_time_ms_forward"));
    EXPECT_TRUE(events.scalars.contains("Train/Samples/val_loss"));
  }
  EXPECT_EQ(files, 2);
  EXPECT_EQ(session_starts, std::vector<std::int64_t>{121}) << "behind the samples of ten steps of 12";
  ASSERT_EQ(losses.size(), 20U);
  for (std::size_t i = 0; i < 20; ++i)
    EXPECT_EQ(losses.at(static_cast<std::int64_t>(i + 1) * 12),
              static_cast<float>(metrics[i].at("loss").get<double>()));
  EXPECT_NE(whole.find("time (ms) | fwd: "), std::string::npos) << whole;
  const std::vector<RunStart> starts = read_starts(run_folder(first));
  ASSERT_EQ(starts.size(), 2U);
  EXPECT_EQ(starts[0].step, 0);
  EXPECT_EQ(starts[1].step, 10);
  EXPECT_EQ(starts[1].ranks, "test ranks");
}

}  // namespace
}  // namespace lockstep::run
