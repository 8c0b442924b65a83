#include "apps/init_command.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "config/words.hpp"
#include "core/error.hpp"
#include "core/text.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* gpt_char = R"(# A small GPT-2 that learns a text character by character: minutes on a laptop.
model:
  type: gpt2
  n_layer: 4            # transformer blocks
  n_head: 4             # attention heads; divides n_embd
  n_embd: 128           # width
  block_size: 128       # characters of context

data:
  type: text
  path: corpus.txt      # any UTF-8 text, relative to this file
  tokenizer: char       # one token a character; byte takes any file
  validation_fraction: 0.1

run:
  steps: 2000           # optimizer steps
  seed: 1
  eval_every: 250       # validation loss
  log_every: 25         # a progress line
  checkpoint: {every: 500, keep_last: 3}   # the same command goes on from the newest

# The training engine, in DeepSpeed's keys and meanings.
train_batch_size: 32                 # samples a step, of all ranks together
train_micro_batch_size_per_gpu: 16   # samples that a rank computes at once
gradient_clipping: 1.0               # largest global norm of the gradient
optimizer:
  type: AdamW
  params: {lr: 2.0e-3, betas: [0.9, 0.99], weight_decay: 0.1}
scheduler:                           # `lockstep lr job.yaml` draws it
  type: WarmupCosineLR
  params: {warmup_num_steps: 100, total_num_steps: auto, warmup_type: linear}
parameter_groups:                    # no weight decay on biases and layer norms
  - {match: ["*.bias", "*.ln_*"], weight_decay: 0.0}
# bf16: {enabled: true}              # faster on CPUs with AMX
)";

constexpr const char* classifier = R"(# A small classifier of generated points: seconds, and no data file.
model:
  type: mlp
  hidden: [64, 64]      # units of each hidden layer

data:
  type: clusters        # Gaussian clusters to tell apart
  classes: 8
  features: 16
  samples: 20000
  noise: 0.8

run:
  steps: 1000           # optimizer steps
  eval_every: 200       # validation loss
  log_every: 50

train_batch_size: 128                # samples a step, of all ranks together
optimizer:
  type: SGD
  params: {lr: 0.1, momentum: 0.9}
scheduler:                           # `lockstep lr job.yaml` draws it
  type: OneCycle
  params:
    cycle_min_lr: 0.01
    cycle_max_lr: 0.1
    cycle_first_step_size: 300
    cycle_second_step_size: 700
    cycle_momentum: false
)";

constexpr const char* deepspeed =
    R"(# Your ds_config.json as it is; this file has what DeepSpeed leaves to the Python program: model, data, run.
deepspeed: ds_config.json   # relative to this file; `lockstep config job.yaml` says what becomes of each key

model:
  type: gpt2
  n_layer: 6
  n_head: 6
  n_embd: 384
  block_size: 256

data:
  type: text
  path: corpus.txt      # any UTF-8 text, relative to this file
  tokenizer: char
  validation_fraction: 0.1

run:
  steps: 2000           # optimizer steps; "auto" in the scheduler's total_num_steps means this
  eval_every: 250
)";

constexpr const char* corpus_next = "put a text beside it as corpus.txt";

}  // namespace

const std::vector<Template>& job_templates() {
  static const std::vector<Template> templates = {
      {"gpt-char", "a GPT-2 of 0.8 million parameters on a text of yours, character by character", gpt_char,
       corpus_next},
      {"classifier", "a classifier of generated points: needs no data, takes seconds", classifier, ""},
      {"deepspeed", "a GPT-2 trained by the ds_config.json that you have", deepspeed,
       "put ds_config.json and a text corpus.txt beside it"},
  };
  return templates;
}

int init_command(const std::string& name, const std::string& folder) {
  std::vector<std::string> names;
  for (const Template& one : job_templates()) names.emplace_back(one.name);
  if (name.empty()) {
    fmt::print("lockstep init NAME [FOLDER] writes a commented job.yaml. NAME is one of\n");
    for (const Template& one : job_templates()) fmt::print("  {:<12} {}\n", one.name, one.about);
    return 0;
  }
  for (const Template& one : job_templates()) {
    if (name != one.name) continue;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(ErrorKind::environment, "init: {} cannot be made: {}", printable(folder), error.message());
    const std::string path = (fs::path(folder) / "job.yaml").lexically_normal().string();
    if (fs::exists(path))
      fail(ErrorKind::config, "init: {} is there already, and stays as it is: name another folder", printable(path));
    std::ofstream file(path, std::ios::binary);
    file << one.text << std::flush;
    if (!file) fail(ErrorKind::environment, "init: {} cannot be written: {}", printable(path), std::strerror(errno));
    fmt::print("{}: {}\nNext:\n", path, one.about);
    if (one.next[0] != '\0') fmt::print("  {}\n", one.next);
    fmt::print("  lockstep config {0}\n  mpirun -n 2 lockstep train {0}\n", path);
    return 0;
  }
  const std::string meant = config::nearest(name, names);
  fail(ErrorKind::config, "init: there is no job file '{}' to start from{}; there are {}", printable(name),
       meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant), config::join(names));
}

}  // namespace lockstep
