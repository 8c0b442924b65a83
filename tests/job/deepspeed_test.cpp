#include "job/deepspeed.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace lockstep::job {
namespace {

// The configuration of DeepSpeed's CIFAR-10 tutorial, key for key.
const char* const cifar = R"({
  "train_batch_size": 16,
  "steps_per_print": 2000,
  "optimizer": {"type": "Adam", "params": {"lr": 0.001, "betas": [0.8, 0.999], "eps": 1e-8, "weight_decay": 3e-7}},
  "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 0.001, "warmup_num_steps": 1000}},
  "gradient_clipping": 1.0,
  "prescale_gradients": false,
  "bf16": {"enabled": false},
  "fp16": {"enabled": true, "fp16_master_weights_and_grads": false, "loss_scale": 0, "loss_scale_window": 500,
           "hysteresis": 2, "min_loss_scale": 1, "initial_scale_power": 15},
  "wall_clock_breakdown": false,
  "zero_optimization": {"stage": 0, "allgather_partitions": true, "reduce_scatter": true,
                        "allgather_bucket_size": 50000000, "reduce_bucket_size": 50000000, "overlap_comm": true,
                        "contiguous_gradients": true, "cpu_offload": false}
})";

class DeepSpeedFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / ("lockstep_deepspeed_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  LoadedJob load(const std::string& file, const std::vector<std::string>& overrides = {},
                 const std::string& more = "") {
    std::ofstream(folder_ / "ds_config.json") << file;
    return load_job_text(
        "job.yaml", "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 10}\ndeepspeed: ds_config.json\n" + more,
        folder_.string(), overrides);
  }

  std::string errors_of(const std::string& file, const std::string& more = "") {
    try {
      (void)load(file, {}, more);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::config);
      return error.what();
    }
    ADD_FAILURE() << "accepted: " << file;
    return {};
  }

  void expect_refused(const std::string& keys, const std::string& part) {
    const std::string errors = errors_of("{\"train_batch_size\": 8,\n" + keys + "}");
    EXPECT_NE(errors.find(part), std::string::npos) << keys << "\n" << errors;
    EXPECT_NE(errors.find("ds_config.json:2:"), std::string::npos) << errors;
    EXPECT_EQ(errors.substr(errors.rfind('\n') + 1), "1 error") << errors;
  }

  void expect_accepted(const std::string& keys) {
    EXPECT_NO_THROW((void)load("{\"train_batch_size\": 8,\n" + keys + "}")) << keys;
  }

  std::filesystem::path folder_;
};

bool lists(const std::vector<DeepSpeedReport::Key>& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

TEST_F(DeepSpeedFile, TutorialConfigurationLoadsUnchanged) {
  const LoadedJob job = load(cifar);
  const JobConfig& config = job.config;
  EXPECT_EQ(config.train_batch_size, 16);
  EXPECT_EQ(config.steps_per_print, 2000);
  EXPECT_EQ(config.optimizer.type, "Adam");
  EXPECT_EQ(config.optimizer.adam, (AdamConfig{0.001, {0.8, 0.999}, 1e-8, 3e-7, true, true}));
  EXPECT_EQ(config.scheduler.type, "WarmupLR");
  EXPECT_EQ(config.scheduler.params, (config::Params{{"warmup_min_lr", 0.0},
                                                     {"warmup_max_lr", 0.001},
                                                     {"warmup_num_steps", 1000},
                                                     {"warmup_type", "log"},
                                                     {"last_batch_iteration", -1}}));
  EXPECT_EQ(config.gradient_clipping, 1.0);
  EXPECT_EQ(config.fp16, (Fp16Config{true, 0, 15, 500, 2, false, 1}));
  EXPECT_FALSE(config.bf16.enabled);
  EXPECT_EQ(config.zero_optimization.stage, 0);

  const DeepSpeedReport& report = *job.deepspeed;
  for (const char* key : {"train_batch_size", "optimizer.params.betas", "scheduler.type", "fp16.loss_scale_window",
                          "zero_optimization.reduce_bucket_size"})
    EXPECT_TRUE(lists(report.acted_on, key)) << key;
  for (const char* key : {"prescale_gradients", "wall_clock_breakdown"})
    EXPECT_TRUE(lists(report.acted_on, key)) << key;
  for (const char* key : {"zero_optimization.contiguous_gradients", "zero_optimization.cpu_offload"})
    EXPECT_TRUE(lists(report.without_effect, key)) << key;
  EXPECT_EQ(report.acted_on.size() + report.without_effect.size(), 30U);
  EXPECT_EQ(load_job_text("x.yaml", effective_yaml(config), "/").config, config);
}

TEST_F(DeepSpeedFile, AutoIsAbsentAndSaid) {
  const LoadedJob job = load(R"({"train_batch_size": 8, "gradient_accumulation_steps": "auto",
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": 0.5}},
    "fp16": {"enabled": "auto"}, "zero_optimization": {"reduce_bucket_size": "auto"},
    "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto", "warmup_num_steps": 2}}})");
  EXPECT_FALSE(job.config.gradient_accumulation_steps.has_value());
  EXPECT_EQ(job.config.optimizer.adam, (AdamConfig{.weight_decay = 0.5}));
  EXPECT_FALSE(job.config.fp16.enabled);
  EXPECT_EQ(job.config.scheduler.params.number("total_num_steps"), 10);
  EXPECT_EQ(deepspeed_lines(job),
            (std::vector<std::string>{
                job.deepspeed->path,
                "acted on: train_batch_size, optimizer.type, optimizer.params.weight_decay, "
                "scheduler.type,",
                "          scheduler.params.total_num_steps, scheduler.params.warmup_num_steps",
                "auto, now: gradient_accumulation_steps: derived",
                "           optimizer.params.lr: 0.001",
                "           fp16.enabled: false",
                "           zero_optimization.reduce_bucket_size: a unit on GPUs, 1048576 on CPUs",
                "           scheduler.params.total_num_steps: 10",
            }));
}

TEST_F(DeepSpeedFile, MayHoldHjsonCommentsRemarksAndOldNames) {
  const LoadedJob job = load(
      "{ # remark\n\"_note\": \"mine\", // more\n\"train_batch_size\": 8, /* and */ "
      "\"bfloat16\": {\"enabled\": true}, \"zero_optimization\": false,}");
  EXPECT_TRUE(job.config.bf16.enabled);
  EXPECT_TRUE(lists(job.deepspeed->without_effect, "_note"));
}

TEST_F(DeepSpeedFile, KnownKeysWithoutEffectAreListed) {
  for (const char* keys : {R"("memory_breakdown": true)",
                           R"("comms_logger": {"enabled": true, "verbose": false})",
                           R"("flops_profiler": {"enabled": true, "profile_step": 1})",
                           R"("wandb": {"enabled": true, "project": "p"})",
                           R"("zero_allow_untested_optimizer": true)",
                           R"("graph_harvesting": false)",
                           R"("timers": {"throughput": {"enabled": false, "synchronized": true}})",
                           R"("seq_parallel_communication_data_type": "fp32")",
                           R"("use_data_before_expert_parallelism": false)",
                           R"("elasticity": {"enabled": false, "anything": 1})",
                           R"("amp": {"enabled": false})",
                           R"("autotuning": {})",
                           R"("zero_optimization": {"allgather_bucket_size": 5e8})",
                           R"("zero_optimization": {"offload_optimizer": {"device": "none"}})",
                           R"("sequence_parallel_size": 1)",
                           R"("zero_optimization": {"round_robin_gradients": true})",
                           R"("gradient_allreduce_op": "mean")",
                           R"("bf16": {"enabled": true, "check_grad_overflow": true})",
                           R"("sparse_gradients": false)",
                           R"("data_types": {"grad_accum_dtype": "fp32"})",
                           R"("optimizer": {"type": "Adam", "params": {"torch_adam": false}})",
                           R"("communication_data_type": null)"})
    expect_accepted(keys);
}

TEST_F(DeepSpeedFile, KeysOfExchangeAndMonitorsAct) {
  const LoadedJob job = load(R"({"train_batch_size": 8, "prescale_gradients": true, "gradient_predivide_factor": 2,
    "wall_clock_breakdown": true, "tensorboard": {"enabled": true, "output_path": "", "job_name": "j"},
    "csv_monitor": {"enabled": false, "output_path": "csv"}})");

  EXPECT_TRUE(job.config.prescale_gradients);
  EXPECT_EQ(job.config.gradient_predivide_factor, 2);
  EXPECT_TRUE(job.config.wall_clock_breakdown);
  EXPECT_EQ(job.config.tensorboard, (MonitorConfig{true, "", "j"}));
  EXPECT_EQ(job.config.csv_monitor, (MonitorConfig{false, "csv", {}}));
  EXPECT_TRUE(lists(job.deepspeed->acted_on, "tensorboard.output_path"));
  EXPECT_TRUE(lists(job.deepspeed->without_effect, "csv_monitor")) << "it is off";
  expect_refused(R"("tensorboard": {"enabled": true, "output_pat": "x"})", "did you mean 'output_path'?");
  expect_refused(R"("gradient_predivide_factor": 0)", "gradient_predivide_factor");
  for (const char* key : {R"("prescale_gradients": true)", R"("gradient_predivide_factor": 2)"}) {
    const std::string file =
        std::string("{\"train_batch_size\": 8, \"train_micro_batch_size_per_gpu\": 1,\n") + key + "}";
    EXPECT_NO_THROW((void)load(file));
    try {
      (void)load(file, {"run.determinism=invariant"});
      ADD_FAILURE() << "accepted: " << key;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("ds_config.json:2:"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("does not go with run.determinism: invariant"), std::string::npos);
    }
  }
}

TEST_F(DeepSpeedFile, RefusesWhatItAsksForInVain) {
  expect_refused(R"("zero_optimization": {"stage": 5})", "0 to 3");
  expect_refused(R"("zero_optimization": {"offload_param": {"device": "nvme"}})", "offload_param is not supported");
  expect_refused(R"("zero_optimization": {"cpu_offload": true})", "cpu_offload is not supported");
  expect_refused(R"("zero_optimization": {"zero_quantized_weights": true})", "ZeRO++");
  expect_refused(R"("optimizer": {"type": "OneBitAdam"})", "OneBitAdam is not supported");
  expect_refused(R"("amp": {"enabled": true})", "amp is not supported");
  expect_refused(R"("compression_training": {"weight_quantization": {}})", "compression_training is not supported");
  expect_refused(R"("moe": {"enabled": true})", "moe is not supported");
  expect_refused(R"("pipeline": {"stages": 2})", "pipeline is not supported");
  expect_refused(R"("elasticity": {"enabled": true})", "elasticity is not supported");
  expect_refused(R"("autotuning": {"enabled": true})", "autotuning is not supported");
  expect_refused(R"("curriculum_learning": {"enabled": true})", "curriculum_learning is not supported");
  expect_refused(R"("hybrid_engine": {"enabled": true})", "hybrid_engine is not supported");
  expect_refused(R"("sparse_attention": {"mode": "fixed"})", "sparse_attention is not supported");
  expect_refused(R"("gradient_allreduce_op": "sum")", "gradient_allreduce_op is not supported");
  expect_refused(R"("managed_gradient_accumulation": false)", "managed_gradient_accumulation is not supported");
  expect_refused(R"("communication_data_type": "fp64")", "fp32, bf16, fp16");
  expect_refused(R"("data_types": {"grad_accum_dtype": "bf16"})", "gradients accumulate in fp32");
  expect_refused(R"("optimizer": {"type": "Adam", "params": {"amsgrad": true}})", "amsgrad is not supported");
}

TEST_F(DeepSpeedFile, IsAsStrictAsTheJobFile) {
  expect_refused(R"("gradient_clipp1ng": 1)", "did you mean 'gradient_clipping'?");
  expect_refused(R"("lr_scheduler": {})", "did you mean 'scheduler'?");
  expect_refused(R"("prescale_gradient": true)", "did you mean 'prescale_gradients'?");
  expect_refused(R"("zero_optimization": {"overlap_com": true})", "did you mean 'overlap_comm'?");
  expect_refused(R"("zero_optimization": {"overlap_comm": 3})", "expected true or false");
  expect_refused(R"("zero_optimization": {"reduce_bucket_size": 15099494.4})", "not a whole number");
  expect_refused(R"("bf16": {"enabled": true, "loss_scale": 0})", "belongs to fp16");
  expect_refused(R"("wandb": {"enabeld": true})", "did you mean 'enabled'?");
  expect_refused(R"("fp16": {"enabled": true, "loss_scale_window": "500"})", "remove the quotes");
  expect_refused(R"("optimizer": {"type": "Adam", "params": {"max_grad_norm": 1}})", "'gradient_clipping'");
  expect_refused(R"("optimizer": {"type": "Adam", "scheduler": {}})", "belongs at the top level");
  expect_refused(R"("run": {"steps": 3})", "unknown key 'run' in the DeepSpeed file");
  expect_refused(R"("fp16": {"enabled": true}, "bf16": {"enabled": true})", "both enabled");
  EXPECT_NE(errors_of("{\"train_batch_size\": 8, \"train_batch_size\": 9}").find("duplicate key"), std::string::npos);
}

TEST_F(DeepSpeedFile, GoesWithAJobFileWithoutTheSameKeys) {
  const std::string errors = errors_of(cifar, "train_batch_size: 4\n");
  EXPECT_NE(errors.find("job.yaml:5:1: error: 'train_batch_size' is given here and in "), std::string::npos) << errors;
  EXPECT_EQ(load(cifar, {}, "parameter_groups: [{match: [x], lr: 1}]\n").config.parameter_groups.size(), 1U);
  EXPECT_EQ(load(cifar, {"train_batch_size=32", "optimizer.params.lr=0.5"}).config.train_batch_size, 32);
  EXPECT_EQ(load(cifar, {"optimizer.params.lr=0.5"}).config.optimizer.adam.lr, 0.5);
}

TEST_F(DeepSpeedFile, WhatItLacksIsMissedThereAndNotInTheJobFile) {
  const std::string lacking = errors_of("{\"gradient_clipping\": 1}");
  const std::string automatic = errors_of("{\"gradient_clipping\": 1,\n \"train_batch_size\": \"auto\"}");

  EXPECT_NE(lacking.find("ds_config.json:1:1: error: train_batch_size or"), std::string::npos) << lacking;
  EXPECT_NE(automatic.find("ds_config.json:2:22: error: train_batch_size or"), std::string::npos) << automatic;
  EXPECT_NE(automatic.find("write a number here"), std::string::npos) << automatic;
}

TEST_F(DeepSpeedFile, MissingFileIsAnErrorAtItsKey) {
  try {
    (void)load_job_text("job.yaml", "deepspeed: nowhere.json\n", folder_.string());
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("job.yaml:1:12: error: "), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lockstep::job
