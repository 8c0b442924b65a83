#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/params.hpp"
#include "config/source.hpp"
#include "sched/schedule.hpp"

namespace lockstep::job {

// What a job file says, as plain structs. The defaults here are the defaults of the job file: the table of
// fields, the reference page and the JSON Schema take them from these structs. Choices are kept as the words of
// the job file; the reader has checked them.

struct Gpt2Config {
  std::string preset;  ///< 124M, 355M, 774M, 1.5B, or empty
  std::int64_t n_layer = 12;
  std::int64_t n_head = 12;
  std::int64_t n_embd = 768;
  std::int64_t block_size = 1024;  ///< tokens
  std::string recompute = "none";
  std::optional<std::int64_t> vocab_size = {};  ///< nothing: what the data has
  std::optional<std::string> init_from = {};    ///< absolute after loading
  double embd_pdrop = 0;
  double resid_pdrop = 0;
  bool operator==(const Gpt2Config&) const = default;
};

struct MlpConfig {
  std::vector<std::int64_t> hidden = {64, 64};  ///< units of each hidden layer
  std::string activation = "gelu";
  double dropout = 0;
  bool operator==(const MlpConfig&) const = default;
};

/// What a program brings itself (run/initialize.hpp): the job file only says so.
struct CustomConfig {
  bool operator==(const CustomConfig&) const = default;
};

struct ConvnetConfig {
  std::vector<std::int64_t> filters = {32, 64};  ///< output channels of each convolution
  std::int64_t kernel = 3;
  std::int64_t pool = 2;
  std::vector<std::int64_t> hidden = {128};
  double dropout = 0;
  bool operator==(const ConvnetConfig&) const = default;
};

struct ModelConfig {
  std::string type = "gpt2";  ///< gpt2 | mlp | convnet | custom; only the block of this type counts
  Gpt2Config gpt2;
  MlpConfig mlp;
  ConvnetConfig convnet;
  CustomConfig custom;
  bool operator==(const ModelConfig&) const = default;
};

struct TextDataConfig {
  std::string path;  ///< absolute after loading
  std::string tokenizer = "char";
  std::optional<std::string> vocab = {};   ///< of tokenizer gpt2; absolute after loading
  std::optional<std::string> merges = {};  ///< of tokenizer gpt2; absolute after loading
  double validation_fraction = 0.1;
  bool operator==(const TextDataConfig&) const = default;
};

struct TokensDataConfig {
  std::string path;                            ///< absolute after loading; may be a folder or a pattern
  std::optional<std::string> validation_path;  ///< the same; nothing: the last part of `path`
  std::string format = "auto";
  std::int64_t vocab_size = 50257;
  double validation_fraction = 0;
  std::int64_t validation_tokens = 0;  ///< 0: all
  bool operator==(const TokensDataConfig&) const = default;
};

struct ClustersDataConfig {
  std::int64_t classes = 4;
  std::int64_t features = 16;
  std::int64_t samples = 4096;
  double noise = 0.5;  ///< standard deviation; the centers have unit variance
  double validation_fraction = 0.1;
  bool operator==(const ClustersDataConfig&) const = default;
};

struct ImagesDataConfig {
  std::string path;                ///< absolute after loading
  double validation_fraction = 0;  ///< 0: the test files are the validation data
  bool operator==(const ImagesDataConfig&) const = default;
};

struct CsvDataConfig {
  std::string path;  ///< absolute after loading
  std::string target;
  std::string task = "classification";
  std::vector<std::string> features;  ///< names of columns; empty: all but the target
  bool standardize = true;
  std::string separator = "comma";
  double validation_fraction = 0.1;
  bool operator==(const CsvDataConfig&) const = default;
};

struct DataConfig {
  std::string type = "text";  ///< text | tokens | clusters | images | csv | custom
  TextDataConfig text;
  TokensDataConfig tokens;
  ClustersDataConfig clusters;
  ImagesDataConfig images;
  CsvDataConfig csv;
  CustomConfig custom;
  bool operator==(const DataConfig&) const = default;
};

struct CheckpointConfig {
  std::int64_t every = 200;     ///< attempted steps; 0: only at the end
  std::int64_t keep_last = 3;   ///< 0: all
  std::int64_t keep_every = 0;  ///< steps; 0: none stays for this
  bool async = true;            ///< written beside training
  bool operator==(const CheckpointConfig&) const = default;
};

struct TraceConfig {
  std::optional<std::vector<std::int64_t>> steps = {};  ///< the first and the last; nothing: no trace
  bool operator==(const TraceConfig&) const = default;
};

struct GuardConfig {
  std::int64_t every = 200;  ///< attempted steps; 0: never
  bool provenance = true;    ///< look for where numbers went bad before a run ends because of them
  bool operator==(const GuardConfig&) const = default;
};

struct RunConfig {
  std::string name;  ///< after loading never empty: the job file's name if it was not given
  std::string output_dir = "runs";
  std::int64_t steps = 0;  ///< attempted steps
  std::int64_t seed = 1;
  std::string device = "auto";
  std::optional<std::int64_t> threads;  ///< of each rank; nothing: auto
  std::string determinism = "exact";
  std::string cuda_graph = "auto";
  std::int64_t eval_every = 200;  ///< 0: never
  std::int64_t log_every = 10;    ///< 0: no line
  CheckpointConfig checkpoint;
  GuardConfig guard;
  std::string resume = "auto";
  std::int64_t max_skipped_steps = 200;  ///< in a row; 0: any number
  bool profile = false;
  TraceConfig trace = {};
  std::optional<double> memory_limit = {};  ///< GiB of a rank; nothing: what is free
  bool operator==(const RunConfig&) const = default;
};

struct CommConfig {
  std::string backend = "auto";
  std::int64_t ranks = 1;  ///< of backend local
  std::string wire = "fp32";
  std::string intra_host = "auto";
  std::string one_copy = "auto";
  bool progress_thread = true;
  bool share_gpu = false;
  double timeout_s = 600;
  double warn_s = 60;            ///< 0: no warnings
  double start_timeout_s = 120;  ///< of MPI_Init and MPI_Finalize
  bool check_collectives = false;
  bool operator==(const CommConfig&) const = default;
};

/// Parameters of Adam and AdamW.
struct AdamConfig {
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool bias_correction = true;
  bool adam_w_mode = true;  ///< Adam's alone: AdamW always decouples the decay
  bool operator==(const AdamConfig&) const = default;
};

struct SgdConfig {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool operator==(const SgdConfig&) const = default;
};

struct LionConfig {
  double lr = 1e-4;
  std::vector<double> betas = {0.9, 0.99};
  double weight_decay = 0;
  bool operator==(const LionConfig&) const = default;
};

struct AdagradConfig {
  double lr = 1e-2;
  double eps = 1e-10;
  double weight_decay = 0;
  double initial_accumulator_value = 0;
  bool operator==(const AdagradConfig&) const = default;
};

struct LambConfig {
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool bias_correction = true;
  double max_coeff = 10;
  double min_coeff = 0.01;
  bool operator==(const LambConfig&) const = default;
};

struct MuonConfig {
  double lr = 1e-3;
  double momentum = 0.95;
  bool nesterov = true;
  double weight_decay = 0.1;
  std::int64_t ns_steps = 5;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  bool operator==(const MuonConfig&) const = default;
};

struct OptimizerConfig {
  /// Adam | AdamW | SGD | Lion | Adagrad | Lamb | Muon, in this spelling; only the block of this type counts
  std::string type = "AdamW";
  AdamConfig adam;
  SgdConfig sgd;
  LionConfig lion;
  AdagradConfig adagrad;
  LambConfig lamb;
  MuonConfig muon;
  bool operator==(const OptimizerConfig&) const = default;
};

struct SchedulerConfig {
  bool present = false;
  std::string type;
  config::Params params;  ///< every parameter of the type, defaults included; sched/ has the table
  bool operator==(const SchedulerConfig&) const = default;
};

struct Fp16Config {
  bool enabled = false;
  double loss_scale = 0;  ///< 0: dynamic
  std::int64_t initial_scale_power = 16;
  std::int64_t loss_scale_window = 1000;
  std::int64_t hysteresis = 2;
  bool consecutive_hysteresis = false;
  std::int64_t min_loss_scale = 1;
  bool operator==(const Fp16Config&) const = default;
};

struct Bf16Config {
  bool enabled = false;
  bool operator==(const Bf16Config&) const = default;
};

struct ZeroConfig {
  std::int64_t stage = 0;
  std::optional<std::int64_t> reduce_bucket_size;  ///< elements; nothing: chosen by the device
  bool operator==(const ZeroConfig&) const = default;
};

/// Where metrics go besides metrics.jsonl.
struct MonitorConfig {
  bool enabled = false;
  std::optional<std::string> output_path;  ///< absent: the run's folder
  std::optional<std::string> job_name;  ///< absent: DeepSpeed's default with an output_path, else no folder of its own
  bool operator==(const MonitorConfig&) const = default;
};

/// Group 1 and up; group 0 is every parameter that no pattern matches. What is absent is the optimizer's.
struct ParameterGroupConfig {
  std::vector<std::string> match;  ///< globs over full parameter names
  std::optional<double> lr;
  std::optional<double> weight_decay;
  std::optional<std::vector<double>> betas;
  std::optional<double> momentum;
  bool operator==(const ParameterGroupConfig&) const = default;
};

struct JobConfig {
  ModelConfig model;
  DataConfig data;
  RunConfig run;
  CommConfig comm;
  std::optional<std::int64_t> train_batch_size;
  std::optional<std::int64_t> train_micro_batch_size_per_gpu;  ///< 0: auto, until run/micro_batch.hpp has chosen one
  std::optional<std::int64_t> gradient_accumulation_steps;
  double gradient_clipping = 1.0;  ///< global L2 norm; 0: off
  std::optional<std::int64_t> steps_per_print;
  std::optional<std::string> communication_data_type;  ///< wins over comm.wire
  bool prescale_gradients = false;
  double gradient_predivide_factor = 1;
  bool wall_clock_breakdown = false;
  MonitorConfig tensorboard;
  MonitorConfig csv_monitor;
  OptimizerConfig optimizer;
  SchedulerConfig scheduler;
  Fp16Config fp16;
  Bf16Config bf16;
  ZeroConfig zero_optimization;
  std::vector<ParameterGroupConfig> parameter_groups;
  bool operator==(const JobConfig&) const = default;

  [[nodiscard]] bool micro_batch_is_auto() const { return train_micro_batch_size_per_gpu == 0; }
  /// Whether the progress line of a step stays, counted as run.steps is.
  [[nodiscard]] bool prints_at(std::int64_t step) const {
    const std::int64_t every = print_every();
    return every > 0 && (step % every == 0 || step == run.steps);
  }
  /// Steps between two progress lines: DeepSpeed's key if given, else run.log_every.
  /// The number format in which gradients travel.
  [[nodiscard]] std::string wire() const { return communication_data_type.value_or(comm.wire); }
  [[nodiscard]] std::int64_t print_every() const { return steps_per_print.value_or(run.log_every); }
};

/// What became of the keys of a DeepSpeed file. A refused key is an error and so never gets here.
struct DeepSpeedReport {
  struct Key {
    std::string key;            ///< "optimizer.params.lr", in this version's name
    config::Position position;  ///< of its value
    std::string why = {};
    bool operator==(const std::string& name) const { return key == name; }
  };
  std::string path;
  config::Position position;  ///< where the file's keys begin
  std::vector<Key> acted_on;
  std::vector<Key> without_effect;  ///< with the reason
  std::vector<Key> autos;  ///< were "auto", which other programs fill in: they count as absent, or follow the run
};

struct LoadedJob {
  JobConfig config;
  std::shared_ptr<const sched::Schedule> schedule;  ///< of `config`: made once, by the reader
  std::string path;
  std::optional<DeepSpeedReport> deepspeed;
  std::vector<std::string> warnings;
};

/// What became of the keys of the job's DeepSpeed file, line by line, for people; empty without one. Keys that were
/// "auto" are shown with the value that they have now.
[[nodiscard]] std::vector<std::string> deepspeed_lines(const LoadedJob& job);

/// A job file of its own in place of the job's DeepSpeed file: YAML that loads to an equal JobConfig, with the line of
/// the DeepSpeed file behind each key that came from there, and what became of all others as comments.
/// ErrorKind::internal for a job without such a file.
[[nodiscard]] std::string imported_yaml(const LoadedJob& job);

/// Reads and checks a job file. `overrides` are "a.b=c" as given to --set; they win over the file.
/// Paths: data.path and deepspeed are relative to the job file, run.output_dir to the current folder.
/// Throws ErrorKind::config with all errors, each with its place.
[[nodiscard]] LoadedJob load_job(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same for a text. `name` stands in messages and decides between YAML and JSON; relative paths are taken from
/// `folder`.
[[nodiscard]] LoadedJob load_job_text(const std::string& name, const std::string& text, const std::string& folder,
                                      const std::vector<std::string>& overrides = {});

/// The schedule of a job, or of one without a scheduler the optimizer's own values for ever. For a JobConfig that a
/// program made; load_job has made that of a file.
[[nodiscard]] std::shared_ptr<const sched::Schedule> make_schedule(const JobConfig& config);

/// The whole configuration as YAML that loads to an equal JobConfig; it stands in the run's folder.
[[nodiscard]] std::string effective_yaml(const JobConfig& config);
/// Its values alone, one line a key: "run.seed: 7".
[[nodiscard]] std::string flat_text(const JobConfig& config);
/// As effective_yaml, with the keys that have no value as comments.
[[nodiscard]] std::string full_yaml(const JobConfig& config);
/// Only what differs from the defaults or has none; loads to an equal JobConfig too.
[[nodiscard]] std::string minimal_yaml(const JobConfig& config);
/// One line for each difference from the defaults: "run.seed: 7  (default 1)".
[[nodiscard]] std::string diff_from_defaults(const JobConfig& config);

}  // namespace lockstep::job
