#include "run/trainer.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "kernels/decide/decide_rule.hpp"
#include "run/checkpoint.hpp"
#include "run/run_folder.hpp"
#include "run/stop_signals.hpp"
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
  TrainResult run(const job::JobConfig& job, int ranks, const std::string& resume = "auto") {
    const Quiet quiet(output_);
    TrainResult result;
    comm::run_ranks(ranks, [&](comm::Communicator& comm) {
      const auto device = make_cpu_device();
      RankContext context{.comm = comm,
                          .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                          .world_source = "comm.ranks",
                          .summary = "test ranks"};
      const TrainResult own = train(job, resume, context);
      if (comm.rank() == 0) result = own;
    });
    return result;
  }
  /// metrics.jsonl without what depends on the clock.
  static std::vector<json> lines(const job::JobConfig& job) {
    std::vector<json> result;
    std::ifstream in(run_folder(job) + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      json parsed = json::parse(line);
      for (const char* key : {"step_ms", "tokens_per_s", "samples_per_s"}) parsed.erase(key);
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
      EXPECT_NEAR(x, y, 1e-5 * y) << "line " << i + 1;
    }
  }
  [[nodiscard]] const ScratchFolder& folder() const { return folder_; }
  /// What the last run printed.
  [[nodiscard]] const std::string& output() const { return output_; }

 private:
  ScratchFolder folder_;
  std::string output_;
};

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
      if (++step % 10 == 0) expected.insert("val_loss");
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

TEST_F(Trainer, ABf16SkipNamesTheParameter) {
  // A first lr this large makes the parameters overflow.
  const std::string text = R"(
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 400}
run: {steps: 6, eval_every: 0, checkpoint: {every: 0}}
train_batch_size: 8
gradient_clipping: 0
optimizer: {type: SGD, params: {lr: 1.0e+38}}
bf16: {enabled: true}
)";
  const job::JobConfig config = job(text, "bf16");
  run(config, 2);
  int skipped = 0;
  for (const json& line : lines(config)) skipped += line.at("skipped").get<bool>() ? 1 : 0;
  EXPECT_GT(skipped, 0);
  EXPECT_NE(output().find("non-finite gradient in layers."), std::string::npos) << output();
}

TEST_F(Trainer, ATamperedRankStopsTheRun) {
  ASSERT_EQ(setenv("LOCKSTEP_DRILL", "desync@rank=1,step=4", 1), 0);
  const job::JobConfig config = job(mlp_job, "tampered");
  const std::string text = error_text(ErrorKind::desync, [&] { run(config, 3); });
  unsetenv("LOCKSTEP_DRILL");
  EXPECT_NE(text.find("step 4: rank 1"), std::string::npos) << text;
  EXPECT_LE(lines(config).size(), 5U);
}

}  // namespace
}  // namespace lockstep::run
