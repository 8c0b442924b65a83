// Job files and DeepSpeed files with random damage, through `config` and `lr`: whatever is in them, the answer is a
// result or an error of the user's, without a byte that a terminal obeys.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <random>

#include "apps/config_command.hpp"
#include "apps/lr_command.hpp"
#include "core/error.hpp"
#include "core/text.hpp"
#include "job/job.hpp"
#include "tests/support/scratch.hpp"

namespace lockstep {
namespace {

/// LOCKSTEP_MUTATIONS asks for more than a test takes every day.
int count() {
  const char* asked = std::getenv("LOCKSTEP_MUTATIONS");
  return asked != nullptr ? std::atoi(asked) : 4000;
}

const std::vector<std::string>& jobs() {
  static const std::vector<std::string> all = {
      "model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 16, block_size: 8}\n"
      "data: {type: text, path: text.txt, tokenizer: char, validation_fraction: 0.1}\n"
      "run:\n  name: kjv\n  steps: 200\n  seed: 7\n  checkpoint: {every: 50, keep_last: 2}\n  resume: never\n"
      "train_batch_size: 64\ntrain_micro_batch_size_per_gpu: 8\ngradient_clipping: 0.5\n"
      "optimizer: {type: AdamW, params: {lr: 1.0e-3, betas: [0.9, 0.95], weight_decay: 0.1}}\n"
      "scheduler: {type: WarmupCosineLR, params: {warmup_num_steps: 10, total_num_steps: auto}}\n"
      "fp16: {enabled: true, loss_scale: 0, initial_scale_power: 12, hysteresis: 4}\n"
      "parameter_groups: [{match: [\"*.bias\", \"*.ln_*\"], weight_decay: 0.0}, {match: [\"*wte*\"], lr: 0.1}]\n",
      "model:\n  type: mlp\n  hidden: [16, 8]\ndata:\n  type: clusters\n  samples: 64\nrun: {steps: 20}\n"
      "comm: {backend: local, ranks: 2, timeout_s: 5}\ntrain_batch_size: 8\n"
      "optimizer:\n  type: SGD\n  params:\n    lr: 0.1\n    momentum: 0.9\n"
      "scheduler:\n  type: ExponentialDecay\n  params: {gamma: 0.99, warmup_steps: 3}\n",
      "{ // JSON\n  \"model\": {\"type\": \"mlp\"}, \"data\": {\"type\": \"clusters\"},\n"
      "  \"run\": {\"steps\": 10, \"output_dir\": \"r\\u00e9\"}, /* and */ \"train_batch_size\": 8,\n"
      "  \"scheduler\": {\"type\": \"OneCycle\", \"params\": {\"cycle_min_lr\": 0.1, \"cycle_max_lr\": [1],\n"
      "    \"cycle_first_step_size\": 4, \"decay_step_size\": 2, \"decay_lr_rate\": 0.5}} # tail\n}\n",
      "model: {type: mlp}\ndata: {type: clusters}\nrun: {steps: 10}\ndeepspeed: ds.json\n"};
  return all;
}

const char* const deepspeed =
    "{\"train_batch_size\": 16, \"steps_per_print\": 20, \"gradient_accumulation_steps\": \"auto\",\n"
    " \"optimizer\": {\"type\": \"Adam\", \"params\": {\"lr\": \"auto\", \"betas\": [0.8, 0.999], \"eps\": 1e-8}},\n"
    " \"scheduler\": {\"type\": \"WarmupLR\", \"params\": {\"warmup_min_lr\": 0, \"warmup_num_steps\": 5}},\n"
    " \"fp16\": {\"enabled\": true, \"loss_scale_window\": 500}, \"wandb\": {\"enabled\": true, \"project\": \"p\"},\n"
    " \"zero_optimization\": {\"stage\": 0, \"overlap_comm\": true, \"reduce_bucket_size\": 5e8, \"cpu_offload\": "
    "false}}\n";

std::string mutated(std::string text, std::mt19937& random) {
  static const std::string bytes = "{}[]:,#\"'\n\t -*&!|>%@`$01e.abz\\\x1b\x7f\xC2\x9B\xFF";
  for (unsigned k = 0; k <= random() % 3 && !text.empty(); ++k) {
    const std::size_t at = random() % text.size();
    switch (random() % 6) {
      case 0:  // a bit
        text[at] = static_cast<char>(text[at] ^ (1 << random() % 8));
        break;
      case 1:
        text[at] = bytes[random() % bytes.size()];
        break;
      case 2:
        text.insert(at, 1, bytes[random() % bytes.size()]);
        break;
      case 3:
        text.erase(at, 1 + random() % 20);
        break;
      case 4:  // a piece twice
        text.insert(at, text.substr(random() % text.size(), random() % 40));
        break;
      default: {  // a piece of another file
        const std::string& other = jobs()[random() % jobs().size()];
        text.insert(at, other.substr(random() % other.size(), random() % 60));
        break;
      }
    }
  }
  return text;
}

bool obeyed_by_a_terminal(std::string text) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\t'; });
  return printable(text) != text;
}

/// What `lockstep lr` prints.
std::string lr_of(const job::LoadedJob& job) {
  LrRequest request{.updates = std::min<std::int64_t>(job.config.run.steps, 300)};
  std::string text;
  for (const LrFormat format : {LrFormat::text, LrFormat::csv, LrFormat::json}) {
    request.format = format;
    text += lr_report(*job.schedule, request);
  }
  return text;
}

TEST(Mutations, DamagedFilesAreTakenOrRefusedInWords) {
  const testing::ScratchFolder folder;
  std::string words;
  for (int i = 0; i < 50; ++i) words += "in the beginning ";
  testing::write_text(folder / "text.txt", words);
  std::mt19937 random(2026);
  std::map<std::string, int> seen;

  for (int i = 0; i < count(); ++i) {
    const std::size_t which = static_cast<std::size_t>(i) % jobs().size();
    const bool damaged = static_cast<std::size_t>(i) >= jobs().size();  // the first ones are as they are
    const bool through_deepspeed = which + 1 == jobs().size();
    const std::string text = damaged && !through_deepspeed ? mutated(jobs()[which], random) : jobs()[which];
    const std::string ds = damaged && through_deepspeed ? mutated(deepspeed, random) : deepspeed;
    testing::write_text(folder / "job.yaml", text);
    testing::write_text(folder / "ds.json", ds);
    SCOPED_TRACE(through_deepspeed ? ds : text);
    const auto begin = std::chrono::steady_clock::now();
    try {
      const std::int64_t ranks = damaged ? static_cast<std::int64_t>(random() % 3) : 0;
      const std::string shown = config_text({.job = folder / "job.yaml", .ranks = ranks});
      const std::string curve = lr_of(job::load_job(folder / "job.yaml"));
      ++seen["taken"];
      ASSERT_FALSE(obeyed_by_a_terminal(shown)) << printable(shown);
      ASSERT_FALSE(obeyed_by_a_terminal(curve)) << printable(curve);
    } catch (const Error& error) {
      ASSERT_TRUE(damaged) << error.what();
      ++seen[std::string(to_string(error.kind()))];
      ASSERT_TRUE(error.kind() == ErrorKind::config || error.kind() == ErrorKind::data ||
                  error.kind() == ErrorKind::environment)
          << error.what();
      ASSERT_FALSE(obeyed_by_a_terminal(error.what())) << printable(error.what());
    }
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  }

  std::string figures;
  for (const auto& [what, number] : seen) figures += what + ": " + std::to_string(number) + "  ";
  RecordProperty("outcomes", figures);
  std::printf("%d files, %s\n", count(), figures.c_str());
  EXPECT_GT(seen["taken"], count() / 100);
  EXPECT_GT(seen["configuration error"], count() / 10);
}

}  // namespace
}  // namespace lockstep
