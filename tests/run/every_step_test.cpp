// A run may end after any of its steps, and go on on any number of ranks: three epochs, to the bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/run_ranks.hpp"
#include "job/job.hpp"
#include "run/run_folder.hpp"
#include "run/trainer.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// 104 samples (of which 0.1 are for validation), 8 a step: an epoch ends within a step.
constexpr const char* job_text =
    "model: {type: mlp, hidden: [8]}\n"
    "data: {type: clusters, classes: 4, features: 6, samples: 104}\n"
    "run: {steps: 36, seed: 5, eval_every: 7, log_every: 0, determinism: invariant, checkpoint: {keep_last: "
    "0}}\n"
    "train_batch_size: 8\n"
    "train_micro_batch_size_per_gpu: 2\n"
    "optimizer: {type: AdamW, params: {lr: 0.01}}\n"
    "scheduler: {type: WarmupLR, params: {warmup_num_steps: 10}}\n";

job::JobConfig job_named(const testing::ScratchFolder& folder, const std::string& name, int checkpoint_every) {
  return job::load_job_text("job.yaml", job_text, folder.path().string(),
                            {"run.name=" + name, "run.output_dir=" + (folder / "runs"),
                             fmt::format("run.checkpoint.every={}", checkpoint_every)})
      .config;
}

void run_on(int ranks, const job::JobConfig& job, const std::string& resume) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  comm::run_ranks(ranks, [&](comm::Communicator& comm) {
    const auto device = make_cpu_device();
    RankContext context{.comm = comm,
                        .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = 1},
                        .world_source = "comm.ranks",
                        .summary = "test ranks"};
    (void)train({.config = job, .schedule = job::make_schedule(job), .path = {}, .deepspeed = {}, .warnings = {}},
                resume, context);
  });
  (void)::testing::internal::GetCapturedStdout();
  (void)::testing::internal::GetCapturedStderr();
}

/// metrics.jsonl without what depends on the clock.
std::vector<json> lines_of(const job::JobConfig& job) {
  std::vector<json> lines;
  std::ifstream in(run_folder(job) + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    json& parsed = lines.emplace_back(json::parse(line));
    for (const char* key : {"step_ms", "samples_per_s", "memory_bytes"}) parsed.erase(key);
  }
  return lines;
}

TEST(EveryStep, IsOneThatARunGoesOnFromOnAnyNumberOfRanks) {
  const testing::ScratchFolder folder;
  const job::JobConfig whole = job_named(folder, "whole", 1);
  run_on(1, whole, "never");
  const std::vector<json> expected = lines_of(whole);
  ASSERT_EQ(expected.size(), 36U);

  for (std::size_t step = 1; step < expected.size(); ++step) {
    const int ranks = std::array{1, 2, 4, 3}[step % 4];
    const job::JobConfig part = job_named(folder, fmt::format("from-{}", step), 0);
    run_on(ranks, part, fmt::format("{}/checkpoints/step-{}", run_folder(whole), step));

    const std::vector<json> found = lines_of(part);
    ASSERT_EQ(found.size(), expected.size() - step);
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(found[i], expected[step + i]) << "from step " << step << " on " << ranks << " ranks";
    fs::remove_all(run_folder(part));
  }
}

}  // namespace
}  // namespace lockstep::run
