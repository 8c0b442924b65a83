#include "run/setup.hpp"

#include "tests/support/training.hpp"

namespace lockstep::run {
namespace {

using testing::error_text;

job::LoadedJob job_of(const std::string& extra, const std::string& optimizer = "{type: AdamW, params: {lr: 0.01}}") {
  const std::string text = R"(
model: {type: mlp, hidden: [16, 8]}
data: {type: clusters, classes: 4, features: 8, samples: 400}
run: {name: a, steps: 20, seed: 3}
train_batch_size: 12
optimizer: )" + optimizer + "\n" +
                           extra;
  return job::load_job_text("job.yaml", text, "/tmp");
}

engine::EngineOptions options_of(const job::LoadedJob& job) {
  const auto dataset = make_dataset(job.config);
  const auto model = make_model(job.config, dataset->classes(), dataset->features());
  return engine_options(job, *model, {.train = 12, .micro = 3, .accumulation = 2, .world = 2, .text = ""}, 0);
}

TEST(Setup, TheModelFitsTheData) {
  const job::JobConfig job = job_of("").config;
  const auto dataset = make_dataset(job);
  EXPECT_EQ(dataset->classes(), 4);
  EXPECT_EQ(dataset->features(), 8);
  const auto model = make_model(job, dataset->classes(), dataset->features());
  EXPECT_EQ(model->classes(), 4);
  EXPECT_EQ(model->parameters().front().shape, (std::vector<std::int64_t>{8, 16}));
  EXPECT_EQ(model->parameters().size(), 6U);
  EXPECT_EQ(sample_length(job), 1);
}

TEST(Setup, PresetsHaveTheParametersOfThePublishedModels) {
  // Hugging Face's gpt2, gpt2-medium, gpt2-large and gpt2-xl: the sums of their tensors, the tied head counted once.
  const std::vector<std::pair<std::string, std::int64_t>> published = {
      {"124M", 124'439'808}, {"355M", 354'823'168}, {"774M", 774'030'080}, {"1.5B", 1'557'611'200}};
  for (const auto& [preset, parameters] : published) {
    const job::LoadedJob job = job::load_job_text("job.yaml",
                                                  "model: {type: gpt2, preset: " + preset +
                                                      "}\ndata: {type: tokens, path: t.bin}\nrun: {steps: 1}\n"
                                                      "train_batch_size: 1\n",
                                                  "/tmp");
    const auto model = make_model(job.config, data_shape(job.config));

    EXPECT_EQ(model->parameter_count(), parameters) << preset;
    EXPECT_EQ(model->classes(), 50257);
    EXPECT_EQ(model->parameters().front().stored_rows, 50304) << "a multiple of 64";
  }
}

TEST(Setup, BatchSeedAndClipping) {
  const engine::EngineOptions options = options_of(job_of("gradient_clipping: 0.5"));
  EXPECT_EQ(options.micro_batch, (nn::BatchShape{.batch = 3, .length = 1}));
  EXPECT_EQ(options.grad_accum, 2);
  EXPECT_EQ(options.seed, 3U);
  EXPECT_EQ(options.gradient_clipping, 0.5);
  EXPECT_EQ(options.compute, DType::f32);
  EXPECT_EQ(options.scaler.on_overflow, ScalerConfig::OnOverflow::halt);
}

TEST(Setup, BucketsAreWholeUnitsOnADeviceUnlessTheJobSaysOtherwise) {
  const auto elements = [](const std::string& extra, bool immediate) {
    const job::LoadedJob job = job_of(extra);
    const auto model = make_model(job.config, 4, 8);
    return engine_options(job, *model, {.train = 12, .micro = 3, .accumulation = 2, .world = 2, .text = ""}, 0,
                          immediate)
        .bucket_elements;
  };
  EXPECT_EQ(elements("", true), 1 << 20);
  EXPECT_GT(elements("", false), std::int64_t{1} << 32);
  for (const bool immediate : {true, false})
    EXPECT_EQ(elements("zero_optimization: {reduce_bucket_size: 1e6}", immediate), 1'000'000);
}

TEST(Setup, StepsAreCapturedWhereTheDeviceCanUnlessTheJobSaysOtherwise) {
  const auto cpu = make_cpu_device(), device = make_emulated_device(1);
  EXPECT_TRUE(choose_capture(job_of("").config, *device).captured);
  EXPECT_FALSE(choose_capture(job_of("").config, *cpu).captured);
  EXPECT_EQ(choose_capture(job_of("").config, *cpu).why_not, "") << "nothing to capture";
  job::LoadedJob off = job_of("");
  off.config.run.cuda_graph = "off";
  EXPECT_EQ(choose_capture(off.config, *device).why_not, "run.cuda_graph: off");
  job::LoadedJob invariant = job_of("");
  invariant.config.run.determinism = "invariant";
  EXPECT_NE(choose_capture(invariant.config, *device).why_not.find("invariant"), std::string::npos);
}

TEST(Setup, TheFirstPatternThatMatchesWins) {
  const job::LoadedJob job = job_of(
      "parameter_groups:\n"
      "  - {match: ['*.bias'], weight_decay: 0.0}\n"
      "  - {match: ['layers.0.*', '*.2.weight'], lr: 0.5}\n");
  const engine::EngineOptions options = options_of(job);
  EXPECT_EQ(options.group_of, (std::vector<int>{2, 1, 0, 1, 2, 1}));
  ASSERT_EQ(options.groups.size(), 3U);
  EXPECT_EQ(options.groups[1].weight_decay, 0.0);
  EXPECT_EQ(options.groups[1].lr, 0.01);
  EXPECT_EQ(options.groups[2].lr, 0.5);
  EXPECT_EQ(options.schedule->groups(), 3U);
}

TEST(Setup, APatternThatMatchesNothingIsNamed) {
  const std::string text = error_text(
      ErrorKind::config, [] { (void)options_of(job_of("parameter_groups: [{match: ['*.bias', '*.ln_*']}]")); });
  EXPECT_NE(text.find("'*.ln_*' matches no parameter"), std::string::npos) << text;
  EXPECT_NE(text.find("layers.0.weight"), std::string::npos) << text;
}

TEST(Setup, Fp16ComputesInHalfPrecisionWithTheJobsScaler) {
  const engine::EngineOptions dynamic = options_of(
      job_of("fp16: {enabled: true, initial_scale_power: 12, loss_scale_window: 7, hysteresis: 3, min_loss_scale: 4, "
             "consecutive_hysteresis: true}"));
  EXPECT_EQ(dynamic.compute, DType::f16);
  EXPECT_EQ(dynamic.scaler.on_overflow, ScalerConfig::OnOverflow::scaled);
  EXPECT_EQ(dynamic.scaler.dynamic, 1);
  EXPECT_EQ(dynamic.scaler.initial_scale, 4096);
  EXPECT_EQ(dynamic.scaler.window, 7);
  EXPECT_EQ(dynamic.scaler.hysteresis, 3);
  EXPECT_EQ(dynamic.scaler.min_scale, 4);
  EXPECT_EQ(dynamic.scaler.consecutive_hysteresis, 1);
  const engine::EngineOptions fixed = options_of(job_of("fp16: {enabled: true, loss_scale: 128}"));
  EXPECT_EQ(fixed.scaler.dynamic, 0);
  EXPECT_EQ(fixed.scaler.initial_scale, 128);
}

TEST(Setup, Bf16SkipsWhatIsNotFinite) {
  const engine::EngineOptions options = options_of(job_of("bf16: {enabled: true}"));
  EXPECT_EQ(options.compute, DType::bf16);
  EXPECT_EQ(options.scaler.on_overflow, ScalerConfig::OnOverflow::skip);
  EXPECT_EQ(options.scaler.initial_scale, 1.0);
}

TEST(Setup, EachOptimizerGetsTheOptionsOfItsJob) {
  const auto adam = options_of(job_of("", "{type: Adam, params: {lr: 0.01, eps: 1.0e-6, adam_w_mode: false}}"));
  EXPECT_EQ(adam.optimizer.kind, optim::OptimizerOptions::Kind::adam);
  EXPECT_FALSE(adam.optimizer.decoupled);
  EXPECT_EQ(adam.optimizer.eps, 1e-6);
  EXPECT_TRUE(options_of(job_of("", "{type: Adam, params: {lr: 0.01}}")).optimizer.decoupled);
  EXPECT_TRUE(options_of(job_of("")).optimizer.decoupled);
  const auto sgd = options_of(job_of("", "{type: SGD, params: {lr: 0.1, momentum: 0.9, nesterov: true}}"));
  EXPECT_EQ(sgd.optimizer.kind, optim::OptimizerOptions::Kind::sgd);
  EXPECT_TRUE(sgd.optimizer.momentum);
  EXPECT_TRUE(sgd.optimizer.nesterov);
  EXPECT_EQ(sgd.groups.front().momentum, 0.9);
  EXPECT_FALSE(options_of(job_of("", "{type: SGD, params: {lr: 0.1}}")).optimizer.momentum);
}

TEST(Setup, TheScheduleIsTheOneThatTheReaderMade) {
  const job::LoadedJob job = job_of("scheduler: {type: StepDecay, params: {step_size: 2}}");
  EXPECT_EQ(options_of(job).schedule, job.schedule);
}

TEST(Setup, OptimizerDefaultsSpelledOutChangeNothing) {
  const auto same = [](const optim::OptimizerOptions& a, const optim::OptimizerOptions& b) {
    return a.kind == b.kind && a.eps == b.eps && a.decoupled == b.decoupled && a.bias_correction == b.bias_correction &&
           a.momentum == b.momentum && a.dampening == b.dampening && a.nesterov == b.nesterov;
  };
  for (const auto& [type, spelled] :
       {std::pair{"AdamW",
                  "lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0, bias_correction: true, "
                  "adam_w_mode: true"},
        {"Adam",
         "lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0, bias_correction: true, adam_w_mode: true"},
        {"SGD", "lr: 0.001, momentum: 0, dampening: 0, weight_decay: 0, nesterov: false"}}) {
    const auto absent = options_of(job_of("", fmt::format("{{type: {}}}", type)));
    const auto present = options_of(job_of("", fmt::format("{{type: {}, params: {{{}}}}}", type, spelled)));
    EXPECT_TRUE(same(absent.optimizer, present.optimizer)) << type;
    EXPECT_EQ(absent.groups, present.groups) << type;
  }
}

TEST(Setup, BatchesThatNoRankCouldHoldOrCountAreRefusedWithNumbers) {
  const auto refused = [](const std::string& job, std::int64_t world) {
    return error_text(ErrorKind::config, [&] {
      (void)batch_sizes(job::load_job_text("job.yaml",
                                           "model: {type: gpt2, block_size: 1024}\n"
                                           "data: {type: text, path: no.txt}\nrun: {steps: 1}\n" +
                                               job,
                                           "/")
                            .config,
                        world, "a test");
    });
  };

  const std::string large = refused("train_batch_size: 16777216\n", 2);
  const std::string many = refused("train_batch_size: 8000000\ntrain_micro_batch_size_per_gpu: 1\n", 2);

  EXPECT_NE(large.find("8388608 samples of length 1024 is more than the 2147483647 positions"), std::string::npos)
      << large;
  EXPECT_NE(many.find("4000000 micro-batches a step for each rank"), std::string::npos) << many;
}

TEST(Setup, WithoutASchedulerTheOptimizersLrHolds) {
  const engine::EngineOptions options = options_of(job_of(""));
  std::vector<StepValues> values(1);
  options.schedule->values_at(123456, values);
  EXPECT_EQ(values[0].lr, 0.01);
}

}  // namespace
}  // namespace lockstep::run
