#include "job/job.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "config/field_value.hpp"
#include "config/schema_text.hpp"
#include "core/error.hpp"
#include "job/schema.hpp"
#include "tests/support/error_text.hpp"

namespace lockstep::job {

using namespace config;
using ::testing::HasSubstr;

namespace {

const char* const good = R"(model:  {type: gpt2, n_layer: 6, n_head: 6, n_embd: 384, block_size: 256, recompute: none}
data:   {type: text, path: corpus.txt, tokenizer: char, validation_fraction: 0.1}
run:    {name: kjv, output_dir: runs, steps: 2000, seed: 7, device: cpu, threads: 2, determinism: fast,
         cuda_graph: off, eval_every: 100, log_every: 5, checkpoint: {every: 50, keep_last: 2}, guard: {every: 40},
         resume: never, max_skipped_steps: 30}
comm:   {backend: local, ranks: 2, wire: fp32, intra_host: mpi, one_copy: off, progress_thread: false,
         share_gpu: true, timeout_s: 60,
         warn_s: 5, start_timeout_s: 30, check_collectives: true}
train_batch_size: 64
train_micro_batch_size_per_gpu: 8
gradient_accumulation_steps: 4
gradient_clipping: 0.5
steps_per_print: 20
communication_data_type: fp32
optimizer: {type: AdamW, params: {lr: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0.1}}
scheduler: {type: WarmupCosineLR, params: {warmup_num_steps: 100, total_num_steps: 2000}}
fp16: {enabled: true, loss_scale: 0, initial_scale_power: 12, loss_scale_window: 500, hysteresis: 4,
       consecutive_hysteresis: true, min_loss_scale: 2}
bf16: {enabled: false}
zero_optimization: {stage: 0}
parameter_groups: [{match: ["*.bias", "*.ln_*"], weight_decay: 0.0}, {match: [wte], lr: 0.1, betas: [0.8, 0.9]}]
)";

const char* const small = "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 10}\ntrain_batch_size: 8\n";

LoadedJob load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return load_job_text("job.yaml", text, "/folder", overrides);
}

std::string errors_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    (void)load(text, overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    return error.what();
  }
  ADD_FAILURE() << "accepted:\n" << text;
  return {};
}

/// `small` with an override, which must fail with this text.
void expect_refused(const std::string& option, const std::string& part, const std::string& job = small) {
  const std::string errors = errors_of(job, {option});
  EXPECT_NE(errors.find(part), std::string::npos) << option << "\n" << errors;
  EXPECT_EQ(errors.substr(errors.rfind('\n') + 1), "1 error") << option << "\n" << errors;
}

TEST(Job, RefusesAGuardThatLooksBackwards) { expect_refused("run.guard.every=-1", "run.guard.every"); }

TEST(Job, ReadsEveryKey) {
  const JobConfig config = load(good).config;
  EXPECT_EQ(config.model.type, "gpt2");
  EXPECT_EQ(config.model.gpt2, (Gpt2Config{"", 6, 6, 384, 256, "none"}));
  EXPECT_EQ(config.data.type, "text");
  EXPECT_EQ(config.data.text, (TextDataConfig{.path = "/folder/corpus.txt", .validation_fraction = 0.1}));
  EXPECT_EQ(config.run,
            (RunConfig{"kjv", "runs", 2000, 7, "cpu", 2, "fast", "off", 100, 5, {50, 2}, {40}, "never", 30}));
  EXPECT_EQ(config.comm, (CommConfig{"local", 2, "fp32", "mpi", "off", false, true, 60, 5, 30, true}));
  EXPECT_EQ(config.train_batch_size, 64);
  EXPECT_EQ(config.train_micro_batch_size_per_gpu, 8);
  EXPECT_EQ(config.gradient_accumulation_steps, 4);
  EXPECT_EQ(config.gradient_clipping, 0.5);
  EXPECT_EQ(config.print_every(), 20);
  EXPECT_EQ(config.optimizer.type, "AdamW");
  EXPECT_EQ(config.optimizer.adam, (AdamConfig{1e-3, {0.9, 0.95}, 1e-8, 0.1, true, true}));
  EXPECT_TRUE(config.scheduler.present);
  EXPECT_EQ(config.scheduler.type, "WarmupCosineLR");
  EXPECT_EQ(config.scheduler.params.integer("warmup_num_steps"), 100);
  EXPECT_EQ(config.fp16, (Fp16Config{true, 0, 12, 500, 4, true, 2}));
  EXPECT_FALSE(config.bf16.enabled);
  ASSERT_EQ(config.parameter_groups.size(), 2U);
  EXPECT_EQ(config.parameter_groups[0].match, (std::vector<std::string>{"*.bias", "*.ln_*"}));
  EXPECT_EQ(config.parameter_groups[0].weight_decay, 0.0);
  EXPECT_FALSE(config.parameter_groups[0].lr.has_value());
  EXPECT_EQ(config.parameter_groups[1].betas, (std::vector<double>{0.8, 0.9}));
}

TEST(Job, ReadsJsonLikeYaml) {
  const std::string json = R"({ // a job
    "model": {"type": "mlp", "hidden": [8]}, "data": {"type": "clusters"}, /* and */
    "run": {"steps": 10, "name": "job"}, "train_batch_size": 8 # tail
  })";
  EXPECT_EQ(
      load_job_text("job.json", json, "").config,
      load("model: {type: mlp, hidden: [8]}\ndata: {type: clusters}\nrun: {steps: 10}\ntrain_batch_size: 8\n").config);
}

TEST(Job, DefaultsAreThoseOfTheStructs) {
  JobConfig expected;
  expected.model.type = "mlp";
  expected.data.type = "clusters";
  expected.run.name = "job";
  expected.run.steps = 10;
  expected.train_batch_size = 8;
  EXPECT_EQ(load(small).config, expected);
  EXPECT_EQ(expected.gradient_clipping, 1.0);
}

TEST(Job, WrittenConfigurationsLoadToEqualOnes) {
  const std::vector<std::string> jobs = {
      good,
      small,
      std::string(small) + "scheduler: {type: WarmupDecayLR, params: {total_num_steps: auto, warmup_num_steps: 2}}\n",
      std::string(small) + "optimizer: {type: SGD, params: {lr: 1, momentum: 0.9, nesterov: true}}\n",
      std::string(small) +
          "scheduler: {type: OneCycle, params: {cycle_min_lr: [0.1], cycle_max_lr: 1, "
          "cycle_second_step_size: null}}\n",
      "model: {type: gpt2, preset: 355M}\ndata: {type: text, path: '/a b/#c: d'}\nrun: {steps: 1e3, name: \"12\"}\n"
      "train_micro_batch_size_per_gpu: 2\n",
  };
  for (const std::string& job : jobs) {
    const JobConfig config = load(job).config;
    for (const std::string& text : {effective_yaml(config), minimal_yaml(config), full_yaml(config)})
      EXPECT_EQ(load(text).config, config) << text;
    EXPECT_EQ(effective_yaml(load(effective_yaml(config)).config), effective_yaml(config));
  }
}

TEST(Job, MinimalAndDiffShowOnlyDifferences) {
  const JobConfig config = load(std::string(small), {"run.seed=5", "run.name=job"}).config;
  EXPECT_EQ(minimal_yaml(config),
            "model:\n  type: mlp\ndata:\n  type: clusters\nrun:\n  name: job\n  steps: 10\n  seed: 5\n"
            "train_batch_size: 8\noptimizer:\n  type: AdamW\n");
  EXPECT_EQ(minimal_yaml(load(small, {"run.name=job", "optimizer={type: SGD, params: {lr: 0.001, momentum: 0.5}}",
                                      "scheduler={type: StepDecay, params: {step_size: 3, gamma: 0.1}}"})
                             .config),
            "model:\n  type: mlp\ndata:\n  type: clusters\nrun:\n  name: job\n  steps: 10\ntrain_batch_size: 8\n"
            "optimizer:\n  type: SGD\n  params:\n    momentum: 0.5\n"
            "scheduler:\n  type: StepDecay\n  params:\n    step_size: 3\n");
  EXPECT_NE(diff_from_defaults(config).find("run.seed: 5  (default 1)\n"), std::string::npos);
  EXPECT_EQ(diff_from_defaults(config).find("timeout_s"), std::string::npos);
  EXPECT_NE(effective_yaml(config).find("    eps: 1e-08\n"), std::string::npos);
  EXPECT_NE(full_yaml(config).find("# train_micro_batch_size_per_gpu: derived\n"), std::string::npos);
}

TEST(Job, PresetsFillWhatIsNotGiven) {
  const std::string rest = "data: {type: text, path: x}\nrun: {steps: 1}\ntrain_batch_size: 1\n";
  EXPECT_EQ(load("model: {type: gpt2, preset: 1.5B}\n" + rest).config.model.gpt2,
            (Gpt2Config{"1.5B", 48, 25, 1600, 1024, "none"}));
  EXPECT_EQ(load("model: {type: gpt2, preset: 355M, block_size: 128, n_layer: 2}\n" + rest).config.model.gpt2,
            (Gpt2Config{"355M", 2, 16, 1024, 128, "none"}));
}

TEST(Job, TokensAreReadWithTheirPathsFromTheJobFilesFolder) {
  const std::string rest = "model: {type: gpt2}\nrun: {steps: 1}\ntrain_batch_size: 1\n";

  const TokensDataConfig two =
      load(rest + "data: {type: tokens, path: 'a/*train*.bin', validation_path: b/val.bin, format: llm.c}\n")
          .config.data.tokens;
  const TokensDataConfig one =
      load(rest +
           "data: {type: tokens, path: /t.bin, validation_fraction: 0.5, validation_tokens: 9, vocab_size: 65536}")
          .config.data.tokens;

  EXPECT_TRUE(two.path.starts_with("/") && two.path.ends_with("/a/*train*.bin")) << two.path;
  EXPECT_TRUE(two.validation_path->starts_with("/") && two.validation_path->ends_with("/b/val.bin"));
  EXPECT_EQ(two.format, "llm.c");
  EXPECT_EQ(two.vocab_size, 50257);
  EXPECT_EQ(one, (TokensDataConfig{"/t.bin", {}, "auto", 65536, 0.5, 9}));
}

TEST(Job, TokensOfTwoValidationPartsOrOfMoreThan16BitsAreRefused) {
  const std::string rest = "model: {type: gpt2}\nrun: {steps: 1}\ntrain_batch_size: 1\n";
  const auto refused = [&](const std::string& data) {
    return errors_of(rest + "data: {type: tokens, " + data + "}\n");
  };

  EXPECT_THAT(refused("path: a, validation_path: b, validation_fraction: 0.1"),
              HasSubstr("job.yaml:4:72: error: data: validation_path and validation_fraction are both given"));
  EXPECT_THAT(refused("path: a, vocab_size: 65537"), HasSubstr("expected an integer from 2 to 65536"));
  EXPECT_THAT(refused("path: a, format: nanogpt"), HasSubstr("its files are called bare here"));
}

TEST(Job, TakesTheNameOfTheFileAndPathsFromItsFolder) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / ("lockstep_job_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tiny.yaml") << "model: {type: gpt2}\ndata: {type: text, path: ../x/c.txt}\n"
                                         "run: {steps: 1}\ntrain_batch_size: 1\n";
  const LoadedJob job = load_job((folder / "tiny.yaml").string());
  EXPECT_EQ(job.config.run.name, "tiny");
  EXPECT_EQ(job.config.data.text.path, (folder.parent_path() / "x/c.txt").lexically_normal().string());
  const std::string missing = (folder / "missing.yaml").string();
  EXPECT_EQ(testing::error_text(ErrorKind::config, [&] { (void)load_job(missing); }),
            missing + ": cannot be opened for reading: No such file or directory; check the path");
}

TEST(Job, OverridesWinAndErrorsNameThem) {
  const JobConfig config =
      load(good, {"run.steps=30", "optimizer.params.lr=0.5", "scheduler=null", "parameter_groups.0.weight_decay=0.2"})
          .config;
  EXPECT_EQ(config.run.steps, 30);
  EXPECT_EQ(config.optimizer.adam.lr, 0.5);
  EXPECT_FALSE(config.scheduler.present);
  EXPECT_EQ(config.parameter_groups[0].weight_decay, 0.2);
  EXPECT_EQ(errors_of(small, {"run.stpes=3"}).find("--set run.stpes=3: error: unknown key 'stpes' in run"), 0U);
  EXPECT_EQ(errors_of(small, {"run.steps=many"}).find("--set run.steps=many: error: run.steps: expected an integer"),
            0U);
}

TEST(Job, ReportsAllErrorsWithTheirPlaces) {
  const std::string errors = errors_of(
      "model: {type: gpt2, n_head: 5}\n"
      "data: {type: clusters, nose: 1}\n"
      "run:\n"
      "  steps: \"10\"\n"
      "  seed: 010\n"
      "lr_scheduler: {type: WarmupLR}\n"
      "optimizer:\n"
      "  type: adam\n"
      "  params: {max_grad_norm: 1}\n"
      "  scheduler: {}\n");
  for (const char* part : {
           "job.yaml:1:29: error: model.n_head: 5 heads do not divide n_embd 768",
           "job.yaml:2:14: error: data.type clusters does not fit model.type gpt2",
           "job.yaml:2:24: error: unknown key 'nose' in data (clusters)",
           "did you mean 'noise'?",
           "job.yaml:4:10: error: run.steps: expected an integer from 1 to 1e12 (attempted optimizer steps), got the "
           "text \"10\"",
           "job.yaml:5:9: error: run.seed: expected an integer >= 0, got '010'",
           "job.yaml:6:1: error: unknown key 'lr_scheduler' in the job file",
           "did you mean 'scheduler'?",
           "job.yaml:9:12: error: unknown key 'max_grad_norm' in optimizer.params (Adam)",
           "'gradient_clipping'",
           "job.yaml:10:3: error: unknown key 'scheduler' in optimizer (Adam)",
           "it belongs at the top level",
           "8 errors",
       })
    EXPECT_NE(errors.find(part), std::string::npos) << part << "\n" << errors;
}

TEST(Job, ModelsAndTheirDataFitTogether) {
  const auto job = [](const std::string& model, const std::string& data) {
    return "model: " + model + "\ndata: " + data + "\nrun: {steps: 1}\ntrain_batch_size: 8\n";
  };
  const std::string images = "{type: images, path: folder}", csv = "{type: csv, path: t.csv, target: y, features: []}";
  for (const std::string& data : {images, csv}) EXPECT_EQ(load(job("{type: mlp}", data)).config.model.type, "mlp");
  EXPECT_EQ(load(job("{type: convnet}", images)).config.model.type, "convnet");
  EXPECT_NE(errors_of(job("{type: convnet}", csv)).find("convnet needs data of type images"), std::string::npos);
  EXPECT_NE(errors_of(job("{type: gpt2}", images)).find("data.type images does not fit model.type gpt2"),
            std::string::npos);
  EXPECT_NE(errors_of(job("{type: convnet, kernel: 4}", images)).find("model.kernel: 4 is even"), std::string::npos);
  EXPECT_NE(errors_of(job("{type: convnet, filters: []}", images)).find("got a list of 0"), std::string::npos);

  const LoadedJob loaded = load(job("{type: mlp, hidden: [], dropout: 0.5}", csv), {"data.path=/abs/t.csv"});
  EXPECT_TRUE(loaded.config.model.mlp.hidden.empty());
  EXPECT_EQ(loaded.config.model.mlp.dropout, 0.5);
  EXPECT_EQ(loaded.config.data.csv.path, "/abs/t.csv");
  EXPECT_EQ(load(effective_yaml(loaded.config)).config, loaded.config);
  EXPECT_NE(errors_of(job("{type: mlp, dropout: 1}", csv)).find("model.dropout"), std::string::npos);
}

TEST(Job, SubwordsNeedTheirTwoFiles) {
  const auto job = [](const std::string& keys) {
    return "model: {type: gpt2}\ndata: {type: text, path: t.txt" + keys + "}\nrun: {steps: 1}\ntrain_batch_size: 8\n";
  };
  const std::string none = errors_of(job(", tokenizer: gpt2"));
  EXPECT_NE(none.find("data.tokenizer: gpt2 needs data.vocab"), std::string::npos) << none;
  EXPECT_NE(none.find("data.tokenizer: gpt2 needs data.merges"), std::string::npos) << none;
  const std::string unused = errors_of(job(", vocab: v.json"));
  EXPECT_NE(unused.find("data.vocab is for tokenizer gpt2, not char"), std::string::npos) << unused;
  EXPECT_NE(errors_of(job(", tokenizer: tiktoken")).find("GPT-2's is called gpt2 here"), std::string::npos);

  const LoadedJob loaded = load(job(", tokenizer: gpt2, vocab: v.json, merges: m.txt"));
  EXPECT_TRUE(loaded.config.data.text.vocab->starts_with("/"));
  EXPECT_TRUE(loaded.config.data.text.merges->ends_with("/m.txt"));
  EXPECT_EQ(load(effective_yaml(loaded.config)).config, loaded.config);
}

TEST(Job, InvariantNeedsToKnowItsMicroBatches) {
  expect_refused("run.determinism=invariant", "add train_micro_batch_size_per_gpu");
  EXPECT_EQ(load(small, {"run.determinism=invariant", "train_micro_batch_size_per_gpu=1"}).config.run.determinism,
            "invariant");
}

TEST(Job, ZeroHasStagesZeroToThree) {
  for (const std::int64_t stage : {0, 1, 2, 3})
    EXPECT_EQ(load(small, {fmt::format("zero_optimization.stage={}", stage)}).config.zero_optimization.stage, stage);
  EXPECT_EQ(load(small, {"zero_optimization=false"}).config.zero_optimization.stage, 0);
  EXPECT_EQ(load(small, {"zero_optimization=true"}).config.zero_optimization.stage, 1);
  expect_refused("zero_optimization.stage=4", "0 to 3");
}

TEST(Job, RefusesWhatThisVersionDoesNotDo) {
  expect_refused("comm.wire=fp8", "fp32, bf16, fp16");
  expect_refused("communication_data_type=int8", "fp32, bf16, fp16");
  expect_refused("model.recompute=full", "none, block, selective", good);
  expect_refused("optimizer={type: OneBitAdam}", "compresses gradients");
  expect_refused("optimizer={type: RMSprop}", "this version has Adam, AdamW, SGD, Lion, Adagrad, Lamb and Muon");
  expect_refused("memory_breakdown=true", "a DeepSpeed key without effect here");
  expect_refused("amp={enabled: true}", "amp is not supported");
  expect_refused("zero_optimization.offload_optimizer={device: cpu}", "is not supported");
}

TEST(Job, ChecksFieldsAgainstEachOther) {
  expect_refused("bf16.enabled=true", "fp16 and bf16 are both enabled", good);
  expect_refused("data={type: text, path: x}", "does not fit model.type mlp");
  expect_refused("run.name=a/b", "cannot name a folder");
  expect_refused("run.name=..", "cannot name a folder");
  expect_refused("train_micro_batch_size_per_gpu=3", "train_batch_size 8 is not a multiple");
  expect_refused("gradient_accumulation_steps=3", "is not a multiple of 1 micro x 3 accumulation");
  expect_refused("train_batch_size=null", "train_batch_size or train_micro_batch_size_per_gpu is required");
  expect_refused("optimizer={type: SGD, params: {nesterov: true}}", "needs momentum above 0");
  expect_refused("parameter_groups=[{match: [x], momentum: 0.5}]", "AdamW has no momentum");
  const std::string with_betas = R"(
model: {type: mlp}
data: {type: clusters}
run: {steps: 10}
train_batch_size: 8
parameter_groups: [{match: [x], betas: [0.1, 0.2]}]
optimizer: {type: )";
  for (const char* type : {"SGD", "Adagrad"})
    EXPECT_NE(errors_of(with_betas + type + "}\n").find(std::string(type) + " has no betas"), std::string::npos);
  expect_refused("optimizer={type: Lamb, params: {min_coeff: 2, max_coeff: 1}}", "min_coeff 2 is above max_coeff 1");
  expect_refused("optimizer={type: Muon, params: {adam_lr: 0.1}}", "a group of their own");
  expect_refused("optimizer={type: Adagrad, params: {lr_decay: 0.1}}", "a scheduler lowers the learning rate");
  expect_refused("comm={backend: mpi, ranks: 2}", "comm.ranks is for backend local");
  expect_refused("scheduler={type: WarmupLR, params: {warmup_max_lr: [1, 2]}}", "2 entries for 1 parameter group");
  expect_refused("fp16.min_loss_scale=0.00001", "fp16.min_loss_scale: expected an integer > 0");
}

TEST(Job, NamesOfOptimizersFollowDeepSpeed) {
  EXPECT_EQ(load(small, {"optimizer={type: ADAMW}"}).config.optimizer.type, "AdamW");
  EXPECT_EQ(load(small, {"optimizer={type: adam}"}).config.optimizer.type, "Adam");
  expect_refused("optimizer={type: sgd}", "unknown type 'sgd'");
  expect_refused("scheduler={type: warmuplr}", "unknown type 'warmuplr'");
}

TEST(Job, AnOptimizerWithoutATypeIsTheDefault) {
  const LoadedJob job = load(small, {"optimizer.params.lr=0.5"});

  EXPECT_EQ(job.config.optimizer.type, OptimizerConfig().type);
  EXPECT_EQ(job.config.optimizer.adam.lr, 0.5);
  EXPECT_EQ(load(std::string(small) + "optimizer: {params: {lr: 0.5}}\n").config, job.config);
  expect_refused("optimizer.params.momentum=0.5", "unknown key 'momentum' in optimizer.params (AdamW)");
}

TEST(Job, TypesOfBlocksAreExplained) {
  const std::string model = explain_key(job_section(), "model.type");
  const std::string optimizer = explain_key(job_section(), "optimizer.type");

  EXPECT_EQ(
      model,
      "model.type\n  Decides the other keys.\n  value:   one of gpt2, mlp, convnet, custom\n  default: required\n"
      "  gpt2: A GPT-2 language model.\n  mlp: Fully connected layers, for data of type clusters, images or csv.\n"
      "  convnet: A small convolutional network, for data of type images.\n"
      "  custom: The model of a program of your own, which reads this file (docs/api.md).\n");
  EXPECT_NE(optimizer.find("default: AdamW\n"), std::string::npos) << optimizer;
  EXPECT_NE(explain_key(job_section(), "run.steps").find("from 1 to 1e12"), std::string::npos);
}

TEST(Job, SchedulerIntegersAreWrittenAsIntegers) {
  expect_refused("scheduler={type: WarmupLR, params: {warmup_num_steps: 10.0}}", "write 10");
  expect_refused("scheduler={type: WarmupLR, params: {warmup_num_steps: 0}}", "out of range");
  expect_refused("scheduler={type: WarmupLR, params: {warmup_num_step: 5}}", "did you mean 'warmup_num_steps'?");
  expect_refused("scheduler={type: WarmupDecayLR}", "scheduler.params.total_num_steps is required");
  expect_refused("scheduler={type: StepLR, params: {step_size: 3, last_epoch: 5}}", "a resumed run goes on with it");
  expect_refused("scheduler={type: ExponentialLR, params: {gamma: 0.9, verbose: true}}", "lockstep lr prints");
  expect_refused("scheduler={type: OneCycleLR, params: {max_lr: 1, total_steps: 30, epochs: 3}}", "write total_steps");
  expect_refused("scheduler={type: CyclicLR, params: {base_lr: 1, max_lr: 2, scale_mode: cycle}}", "choose a mode");
  expect_refused("scheduler={type: Sequence, params: {stages: [{type: StepLR, params: {gamma: 1}}]}}",
                 "scheduler.params.stages[0].params.step_size is required for StepLR");
  expect_refused("scheduler={type: ChainedScheduler}", "write Sequence or SequentialLR");
  expect_refused("scheduler={type: SequentialLR, params: {milestones: [3], schedulers: [{type: WarmupLR}]}}",
                 "Sequence takes any scheduler");
  expect_refused("scheduler={type: CosineAnnealingLR, params: {T_max: 9, min_lr: 0.1}}", "did you mean 'eta_min'?");
  EXPECT_EQ(load(small, {"scheduler={type: WarmupLR}"}).config.scheduler.params.integer("warmup_num_steps"), 1000);
}

TEST(Job, AScheduleThatReadsValLossNeedsEvaluations) {
  const std::string with = std::string(small) + "scheduler: {type: ReduceLROnPlateau}\n";
  expect_refused("run.eval_every=0", "give run.eval_every the steps between two evaluations", with);
  const std::vector<std::string> late = load(with, {"run.eval_every=10"}).warnings;
  ASSERT_EQ(late.size(), 1U);
  EXPECT_NE(late[0].find("never acts"), std::string::npos) << late[0];
  EXPECT_TRUE(load(with, {"run.eval_every=9"}).warnings.empty());
}

TEST(Job, TotalStepsMayFollowTheRun) {
  const std::string option = "scheduler={type: WarmupDecayLR, params: {total_num_steps: auto, warmup_num_steps: 2}}";
  EXPECT_EQ(load(small, {option, "run.steps=77"}).config.scheduler.params.number("total_num_steps"), 77);
  EXPECT_EQ(load(small, {"scheduler={type: CosineAnnealingLR, params: {T_max: auto}}", "run.steps=77"})
                .config.scheduler.params.integer("T_max"),
            77);
  const std::string stages =
      "scheduler={type: Sequence, params: {stages: [{steps: 7, type: LinearLR, params: {total_iters: auto}}, "
      "{type: CosineAnnealingLR, params: {T_max: auto}}]}}";
  EXPECT_NE(effective_yaml(load(small, {stages, "run.steps=77"}).config)
                .find("stages: [{steps: 7, type: LinearLR, params: {total_iters: 7}}, "
                      "{type: CosineAnnealingLR, params: {T_max: 70}}]"),
            std::string::npos);
  const LoadedJob longer =
      load(small, {"scheduler={type: WarmupDecayLR, params: {total_num_steps: 50, warmup_num_steps: 2}}"});
  ASSERT_FALSE(longer.warnings.empty());
  EXPECT_NE(longer.warnings[0].find("the run ends after 10 steps, before the schedule's 50"), std::string::npos);
}

TEST(Job, AnExplicitNullIsAValueOfASchedule) {
  const std::string block = "scheduler={type: WarmupDecayLR, params: {total_num_steps: 20, warmup_num_steps: 2";
  std::vector<StepValues> absent(1), null(1);

  load(small, {block + "}}", "optimizer.type=AdamW", "optimizer.params.lr=0.5"}).schedule->values_at(3, absent);
  load(small, {block + ", warmup_max_lr: null}}", "optimizer.type=AdamW", "optimizer.params.lr=0.5"})
      .schedule->values_at(3, null);

  EXPECT_EQ(absent[0].lr, 0.001);
  EXPECT_EQ(null[0].lr, 0.5);
}

TEST(Job, GroupsStartFromTheOptimizersValues) {
  const auto groups = load(good).schedule->initial();
  ASSERT_EQ(groups.size(), 3U);
  EXPECT_EQ(groups[0].lr, 1e-3);
  EXPECT_EQ(groups[0].beta2, 0.95);
  EXPECT_EQ(groups[0].weight_decay, 0.1);
  EXPECT_TRUE(groups[0].has_betas);
  EXPECT_EQ(groups[1].weight_decay, 0.0);
  EXPECT_EQ(groups[1].lr, 1e-3);
  EXPECT_EQ(groups[2].lr, 0.1);
  EXPECT_EQ(groups[2].beta1, 0.8);
  const auto sgd = load(small, {"optimizer={type: SGD, params: {momentum: 0.9}}"}).schedule->initial();
  EXPECT_FALSE(sgd[0].has_betas);
  const auto lion = load(small, {"optimizer={type: lion}"}).schedule->initial();
  EXPECT_TRUE(lion[0].has_betas);
  EXPECT_EQ(lion[0].lr, 1e-4);
  EXPECT_EQ(lion[0].beta2, 0.99);
  const auto adagrad = load(small, {"optimizer={type: ADAGRAD, params: {weight_decay: 0.5}}"}).schedule->initial();
  EXPECT_FALSE(adagrad[0].has_betas);
  EXPECT_EQ(adagrad[0].lr, 0.01);
  EXPECT_EQ(adagrad[0].weight_decay, 0.5);
  EXPECT_EQ(adagrad[0].momentum, 0);
  const auto lamb = load(small, {"optimizer={type: Lamb}"}).schedule->initial();
  EXPECT_TRUE(lamb[0].has_betas);
  EXPECT_EQ(lamb[0].beta2, 0.999);
  // Muon has both; its momentum is what schedules cycle.
  const auto muon = load(small, {"optimizer={type: muon}",
                                 "parameter_groups=[{match: [x], momentum: 0.5, betas: [0.1, 0.2], lr: 0.3}]"})
                        .schedule->initial();
  EXPECT_FALSE(muon[0].has_betas);
  EXPECT_EQ(muon[0].momentum, 0.95);
  EXPECT_EQ(muon[0].beta2, 0.999);
  EXPECT_EQ(muon[0].weight_decay, 0.1);
  EXPECT_EQ(muon[1].momentum, 0.5);
  EXPECT_EQ(muon[1].beta1, 0.1);
  EXPECT_EQ(muon[1].lr, 0.3);
  EXPECT_EQ(sgd[0].momentum, 0.9);
  EXPECT_EQ(sgd[0].lr, 1e-3);
}

// Properties over the whole table.

struct Key {
  std::string path;
  const Field* field;
};

void collect(const Keys& here, const std::string& path, std::vector<Key>& keys) {
  for (const Field& field : here.fields) keys.push_back({path + field.name, &field});
  for (const Section& sub : here.sections)
    if (!sub.list) collect(sub.keys, path + sub.name + ".", keys);
}

/// Every key that `good` may have, variants included.
std::vector<Key> keys_of_good() {
  std::vector<Key> keys;
  collect(job_section().keys, "", keys);
  for (const auto& [name, type] :
       {std::pair{"model", "gpt2"}, {"data", "text"}, {"optimizer", "AdamW"}, {"scheduler", "WarmupCosineLR"}})
    collect(job_section().keys.find_section(name)->types->find(type)->keys, std::string(name) + ".", keys);
  return keys;
}

TEST(JobTable, EveryKeyRefusesTheWrongKindOfValue) {
  const auto keys = keys_of_good();
  ASSERT_GT(keys.size(), 50U);
  for (const Key& key : keys) {
    if (key.path == "deepspeed") continue;
    for (const char* value : {"{a: 1}", "[{a: 1}]"}) {
      const std::string errors = errors_of(good, {key.path + "=" + value});
      EXPECT_NE(errors.find(key.path), std::string::npos) << errors;
    }
    if (key.field->min) {
      const double below = *key.field->min - 1;
      const std::string number = key.field->length ? fmt::format("[{}, {}]", below, below) : fmt::format("{}", below);
      EXPECT_NE(errors_of(good, {key.path + "=" + number}).find(key.path), std::string::npos);
    }
  }
}

TEST(Job, MemoryLimitProfileAndTraceAreRead) {
  const JobConfig config = load(small, {"run.memory_limit=2.5", "run.profile=true", "run.trace={steps: [3, 5]}",
                                        "train_micro_batch_size_per_gpu=auto"})
                               .config;
  EXPECT_EQ(config.run.memory_limit, 2.5);
  EXPECT_TRUE(config.run.profile);
  EXPECT_EQ(config.run.trace.steps, (std::vector<std::int64_t>{3, 5}));
  EXPECT_TRUE(config.micro_batch_is_auto());
  EXPECT_EQ(load_job_text("job.yaml", effective_yaml(config), "/folder").config, config);
  EXPECT_FALSE(load(small).config.micro_batch_is_auto());
  expect_refused("run.memory_limit=0", "run.memory_limit");
  expect_refused("run.trace.steps=[3]", "run.trace.steps");
  expect_refused("run.trace.steps=[0, 3]", "run.trace.steps");
  expect_refused("train_micro_batch_size_per_gpu=many", "train_micro_batch_size_per_gpu");
}

TEST(JobTable, DefaultsAreLegalValues) {
  for (const Key& key : keys_of_good()) {
    const Field& field = *key.field;
    EXPECT_FALSE(field.doc.empty()) << key.path;
    if (field.required || field.default_text.empty()) continue;
    if (field.default_text == "derived" || field.default_text.find(' ') != std::string::npos ||
        field.default_text == "run.log_every" || field.default_text == "comm.wire")
      continue;
    Diagnostics diagnostics;
    const Node root = parse_document("t", "v: " + field.default_text, Syntax::yaml, diagnostics);
    const bool null = root.find("v")->kind == Node::Kind::null && field.nullable;
    EXPECT_TRUE(null || read_value(*root.find("v"), field, key.path, diagnostics))
        << key.path << " " << diagnostics.render();
  }
}

// A default stands in one place: writing it out changes nothing.

/// "run.seed=1" for every key of `here` whose default is a value that a file can hold.
void spell_out(const Keys& here, const std::string& path, std::vector<std::string>& options) {
  for (const Field& field : here.fields) {
    Diagnostics diagnostics;
    const Node node = parse_document("default", field.default_text, Syntax::yaml, diagnostics);
    const bool legal = !field.default_text.empty() && (read_value(node, field, path, diagnostics) ||
                                                       (node.kind == Node::Kind::null && field.nullable));
    // Texts that say where a value comes from: "the job file's name", "derived" (run.name takes any text).
    if (legal && field.default_text.find(' ') == std::string::npos)
      options.push_back(path + field.name + "=" + field.default_text);
  }
  for (const Section& section : here.sections)
    if (!section.list) spell_out(section.keys, path + section.name + ".", options);
}

struct Kind {
  std::string model, data, optimizer, scheduler;
};

/// Every type of every block, with the values that have no default.
std::vector<Kind> kinds() {
  std::vector<Kind> all = {{"gpt2", "text", "AdamW", ""},
                           {"gpt2", "tokens", "AdamW", ""},
                           {"mlp", "clusters", "AdamW", ""},
                           {"mlp", "csv", "AdamW", ""},
                           {"convnet", "images", "AdamW", ""}};
  for (const char* optimizer : {"Adam", "SGD", "Lion", "Adagrad", "Lamb", "Muon"})
    all.push_back({"mlp", "clusters", optimizer, ""});
  for (const std::string& scheduler : sched::types()) all.push_back({"mlp", "clusters", "AdamW", scheduler});
  return all;
}

std::vector<std::string> required_of(const Kind& kind) {
  std::vector<std::string> options = {"model.type=" + kind.model, "data.type=" + kind.data, "run.steps=20",
                                      "train_batch_size=8", "optimizer.type=" + kind.optimizer};
  if (kind.data != "clusters") options.emplace_back("data.path=x");
  if (kind.data == "csv") options.emplace_back("data.target=y");
  if (kind.scheduler.empty()) return options;
  options.push_back("scheduler.type=" + kind.scheduler);
  for (const Field& field : sched::fields_of(kind.scheduler))
    if (field.required)
      options.push_back("scheduler.params." + field.name +
                        (field.or_auto                             ? "=auto"
                         : field.type == FieldType::integer_list   ? "=[5]"
                         : field.type == FieldType::number_or_list ? "=0.5"
                         : field.name == "schedulers" ? "=[{type: ConstantLR}, {type: StepLR, params: {step_size: 4}}]"
                         : field.type == FieldType::block_list
                             ? "=[{steps: 3, type: Constant}, {type: StepLR, params: {step_size: 4}}]"
                             : "=2"));
  return options;
}

TEST(JobTable, EveryDefaultSpelledOutGivesTheSameJobAndSchedule) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(fmt::format("{} {} {} {}", kind.model, kind.data, kind.optimizer, kind.scheduler));
    const std::vector<std::string> required = required_of(kind);
    std::vector<std::string> defaults;
    spell_out(job_section().keys, "", defaults);
    for (const auto& [block, type] : {std::pair{"model", kind.model},
                                      {"data", kind.data},
                                      {"optimizer", kind.optimizer},
                                      {"scheduler", kind.scheduler}})
      if (!type.empty())
        spell_out(job_section().keys.find_section(block)->types->find(type)->keys, std::string(block) + ".", defaults);
    std::vector<std::string> spelled = defaults;
    spelled.insert(spelled.end(), required.begin(), required.end());

    const LoadedJob absent = load("{}", required), present = load("{}", spelled);

    EXPECT_GT(defaults.size(), 35U);  // none is lost on the way
    EXPECT_EQ(absent.config, present.config) << effective_yaml(absent.config) << "\nspelled out:\n"
                                             << effective_yaml(present.config);
    EXPECT_EQ(absent.warnings.size(), present.warnings.size());
    ASSERT_EQ(absent.schedule->initial(), present.schedule->initial());
    std::vector<StepValues> a(1), b(1);
    for (std::int64_t k = 0; k < 30; ++k) {
      absent.schedule->values_at(k, a);
      present.schedule->values_at(k, b);
      EXPECT_EQ(a, b) << "update " << k;
    }
  }
}

TEST(JobTable, MisspeltKeysAreRecognised) {
  int right = 0;
  int all = 0;
  for (const Key& key : keys_of_good()) {
    const std::string name = key.field->name;
    if (name.size() < 4) continue;
    const std::string owner = key.path.substr(0, key.path.size() - name.size());
    for (std::size_t at = 0; at + 1 < name.size(); ++at) {
      std::string swapped = name;
      std::swap(swapped[at], swapped[at + 1]);
      for (const std::string& wrong :
           {name.substr(0, at) + name.substr(at + 1), name.substr(0, at) + "x" + name.substr(at), swapped}) {
        if (wrong == name) continue;
        ++all;
        const std::string errors = errors_of(good, {owner + wrong + "=1"});
        if (errors.find("did you mean '" + name + "'?") != std::string::npos) ++right;
      }
    }
  }
  EXPECT_GT(all, 1000);
  EXPECT_GE(right, all * 97 / 100) << right << " of " << all;
}

TEST(JobTable, MutatedFilesNeverDoWorseThanAnError) {
  std::mt19937 random(1);
  const std::string bytes = "{}[]:,#\"'\n\t -*&!|>%@`01e.abz\\\xFF";
  int loaded = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = i % 2 == 0 ? good : small;
    for (unsigned k = 0; k <= random() % 3; ++k) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = bytes[random() % bytes.size()];
          break;
        case 1:
          text.insert(at, 1, bytes[random() % bytes.size()]);
          break;
        case 2:
          text.erase(at, 1 + random() % 20);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 40));
          break;
      }
    }
    try {
      (void)load(text);
      ++loaded;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::config) << error.what() << "\n" << text;
    }
  }
  EXPECT_GT(loaded, 20);
  EXPECT_LT(loaded, 2900);
}

}  // namespace

TEST(Job, AFileInTheCurrentFolderIsToldItsErrorsToo) {
  for (const std::string data : {"{type: text}", "{type: images}", "{type: csv}", "{type: tokens}", "{type: points}"}) {
    const std::string text = "model: {type: mlp}\ndata: " + data + "\nrun: {steps: 10}\ntrain_batch_size: 8\n";
    try {
      (void)load_job_text("job.yaml", text, "", {});
      ADD_FAILURE() << "accepted: " << data;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config) << data;
      EXPECT_THAT(error.what(), HasSubstr("job.yaml:2:")) << data;
    }
  }
}
}  // namespace lockstep::job
