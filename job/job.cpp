#include "job/job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "core/error.hpp"
#include "job/deepspeed.hpp"
#include "job/fields.hpp"

namespace lockstep::job {
namespace {

namespace fs = std::filesystem;

/// Walks the shared part of the table and notes the names.
struct EngineKeys {
  std::vector<std::string> names;
  template <class T>
  void field(const T&, const Field& field) {
    names.push_back(field.name);
  }
  template <class Config, class Visit>
  void section(const table::About& about, const Config&, Visit) {
    names.push_back(about.name);
  }
  void optimizer(const TypedParams&) { names.emplace_back("optimizer"); }
  void scheduler(const SchedulerConfig&) { names.emplace_back("scheduler"); }
};

/// Keys that a job file and a DeepSpeed file share: with `deepspeed` they belong into that file.
const std::vector<std::string>& engine_keys() {
  static const auto names = [] {
    EngineKeys keys;
    const JobConfig config;
    table::engine_keys(config, keys);
    return keys.names;
  }();
  return names;
}

bool is_engine_key(const std::string& key) {
  return std::find(engine_keys().begin(), engine_keys().end(), key) != engine_keys().end();
}

/// Walks the table and puts what the file gives into the members.
class Fill {
 public:
  explicit Fill(const Values& values) : values_(values) {}

  template <class T>
  void field(T& member, const Field& field) {
    if (const ParamValue* value = values_.find(field.name)) assign(member, *value);
  }

  template <class Config, class Visit>
  void section(const table::About& about, Config& config, Visit visit) {
    Fill inner(values_.section(about.name));
    visit(config, inner);
  }

  template <class... Alternatives>
  void variant(const table::About& about, std::string& type, const Alternatives&... alternatives) {
    const Values& block = values_.section(about.name);
    if (block.variant.empty()) return;
    type = block.variant;
    Fill inner(block);
    const auto fill_if = [&](const auto& alternative) {
      if (alternative.about.name == type) alternative.visit(alternative.config, inner);
    };
    (fill_if(alternatives), ...);
  }

  void optimizer(TypedParams& optimizer) {
    const Values& block = values_.section("optimizer");
    if (!block.variant.empty()) optimizer = {block.variant, block.section("params").params()};
  }

  void scheduler(SchedulerConfig& scheduler) {
    const Values& block = values_.section("scheduler");
    if (!block.variant.empty()) scheduler = {true, block.variant, block.section("params").params()};
  }

  void groups(std::vector<ParameterGroupConfig>& groups) {
    const auto list = values_.lists.find("parameter_groups");
    if (list == values_.lists.end()) return;
    for (const Values& block : list->second) {
      Fill inner(block);
      table::group(groups.emplace_back(), inner);
    }
  }

 private:
  template <class T>
  static void assign(T& member, const ParamValue& value) {
    member = std::get<T>(value.value);
  }
  template <class T>
  static void assign(std::optional<T>& member, const ParamValue& value) {
    if (value == ParamValue("auto"))
      member.reset();
    else
      assign(member.emplace(), value);
  }
  template <class T>
  static void assign(std::vector<T>& member, const ParamValue& value) {
    member.clear();
    for (const ParamValue& entry : std::get<ParamValue::List>(value.value)) member.push_back(std::get<T>(entry.value));
  }

  const Values& values_;
};

struct Preset {
  const char* name;
  std::int64_t n_layer, n_head, n_embd;
};
constexpr std::array<Preset, 4> presets = {{
    {"124M", 12, 12, 768},
    {"355M", 24, 16, 1024},
    {"774M", 36, 20, 1280},
    {"1.5B", 48, 25, 1600},
}};

/// What one field alone cannot tell: checks between fields, and values that follow from others.
class Checks {
 public:
  Checks(JobConfig& config, const Values& values, Diagnostics& diagnostics)
      : config_(config), values_(values), diagnostics_(diagnostics) {}

  void run() {
    model();
    run_name();
    precision();
    batch();
    comm();
    optimizer();
    groups();
    // A schedule is only made from values that are right in themselves.
    if (diagnostics_.error_count() == 0) scheduler();
  }

 private:
  void model() {
    const Values& block = values_.section("model");
    const bool language = config_.model.type == "gpt2";
    if (language) gpt2(block);
    const Values& data = values_.section("data");
    if (block.variant.empty() || data.variant.empty() || language == (config_.data.type == "text")) return;
    diagnostics_.error(data.variant_place,
                       fmt::format("data.type {} does not fit model.type {}", config_.data.type, config_.model.type),
                       language ? "gpt2 needs data of type text" : "mlp needs data of type clusters");
  }

  void gpt2(const Values& block) {
    Gpt2Config& gpt2 = config_.model.gpt2;
    for (const Preset& preset : presets) {
      if (gpt2.preset != preset.name) continue;
      if (block.find("n_layer") == nullptr) gpt2.n_layer = preset.n_layer;
      if (block.find("n_head") == nullptr) gpt2.n_head = preset.n_head;
      if (block.find("n_embd") == nullptr) gpt2.n_embd = preset.n_embd;
    }
    if (gpt2.n_embd % gpt2.n_head != 0)
      diagnostics_.error(
          block.place_of("n_head"),
          fmt::format("model.n_head: {} heads do not divide n_embd {}", gpt2.n_head, gpt2.n_embd),
          fmt::format("with {} heads take n_embd {}", gpt2.n_head, (gpt2.n_embd / gpt2.n_head + 1) * gpt2.n_head));
  }

  void run_name() {
    const std::string& name = config_.run.name;
    const bool good = !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
    });
    if (!good)
      diagnostics_.error(values_.section("run").place_of("name"),
                         fmt::format("run.name: '{}' cannot name a folder", name),
                         "letters, digits, '.', '_' and '-', not beginning with '.'");
  }

  void precision() {
    if (config_.fp16.enabled && config_.bf16.enabled)
      diagnostics_.error(values_.section("bf16").place_of("enabled"), "fp16 and bf16 are both enabled",
                         "turn one of the two off");
    if (config_.fp16.enabled && config_.fp16.hysteresis == 0)
      diagnostics_.warning(values_.section("fp16").place_of("hysteresis"),
                           "with hysteresis 0 the loss scale never falls, as in DeepSpeed; 1 halves it at once");
  }

  void batch() {
    const auto& train = config_.train_batch_size;
    const auto& micro = config_.train_micro_batch_size_per_gpu;
    const auto& accumulation = config_.gradient_accumulation_steps;
    const bool any_bad = diagnostics_.error_count() > 0;
    if (!train && !micro && !any_bad)
      diagnostics_.error(values_.place_of("gradient_accumulation_steps"),
                         "train_batch_size or train_micro_batch_size_per_gpu is required",
                         "add train_batch_size: the samples of one step over all ranks");
    const std::int64_t unit = micro.value_or(1);
    if (train && *train / unit * unit != *train)
      diagnostics_.error(
          values_.place_of("train_batch_size"),
          fmt::format("train_batch_size {} is not a multiple of train_micro_batch_size_per_gpu {}", *train, unit));
    else if (train && accumulation && *train / unit % *accumulation != 0)
      diagnostics_.error(values_.place_of("train_batch_size"),
                         fmt::format("train_batch_size {} is not a multiple of {} micro x {} accumulation", *train,
                                     unit, *accumulation));
  }

  void comm() {
    if (config_.comm.ranks > 1 && (config_.comm.backend == "mpi" || config_.comm.backend == "nccl"))
      diagnostics_.error(
          values_.section("comm").place_of("ranks"),
          fmt::format("comm.ranks is for backend local; with {} the launcher says it", config_.comm.backend),
          fmt::format("remove it and start with mpirun -n {}", config_.comm.ranks));
  }

  void optimizer() {
    const Params& params = config_.optimizer.params;
    const Values& block = values_.section("optimizer").section("params");
    if (config_.optimizer.type == "SGD" && params.boolean("nesterov", false) &&
        (params.number("momentum", 0) <= 0 || params.number("dampening", 0) != 0))
      diagnostics_.error(block.place_of("nesterov"),
                         "optimizer.params.nesterov needs momentum above 0 and dampening 0");
    if (config_.optimizer.type == "AdamW" && !params.boolean("adam_w_mode", true))
      diagnostics_.warning(block.place_of("adam_w_mode"),
                           "AdamW always decouples the decay; for L2 use type Adam with adam_w_mode: false");
  }

  void groups() {
    const auto list = values_.lists.find("parameter_groups");
    if (list == values_.lists.end()) return;
    const bool sgd = config_.optimizer.type == "SGD";
    for (const Values& group : list->second) {
      const char* key = sgd ? "betas" : "momentum";
      if (group.find(key) != nullptr)
        diagnostics_.error(group.place_of(key),
                           fmt::format("parameter_groups: {} has no {}", config_.optimizer.type, key),
                           sgd ? "SGD has momentum" : "Adam has betas");
    }
  }

  void scheduler() {
    SchedulerConfig& scheduler = config_.scheduler;
    if (!scheduler.present) return;
    const Values& block = values_.section("scheduler");
    const Values& params = block.section("params");
    for (const char* total : {"total_num_steps", "total_steps"}) {
      const ParamValue* value = scheduler.params.find(total);
      if (value == nullptr) continue;
      if (*value == ParamValue("auto")) scheduler.params.set(total, run_steps_as(total));
      const double steps = scheduler.params.number(total, 0);
      if (steps > static_cast<double>(config_.run.steps))
        diagnostics_.warning(
            params.place_of(total),
            fmt::format("the run ends after {} steps, before the schedule's {}", config_.run.steps, steps));
    }
    const std::size_t groups = config_.parameter_groups.size() + 1;
    for (const auto& [name, value] : scheduler.params.all())
      if (const auto* entries = std::get_if<ParamValue::List>(&value.value); entries != nullptr && takes_groups(name))
        if (entries->size() != groups)
          diagnostics_.error(params.place_of(name),
                             fmt::format("scheduler.params.{}: {} entries for {} parameter group{}", name,
                                         entries->size(), groups, groups == 1 ? "" : "s"),
                             groups == 1 ? "give one number" : fmt::format("give one number or {}", groups));
    if (diagnostics_.error_count() > 0) return;
    try {
      const auto schedule = sched::make_schedule(scheduler.type, scheduler.params, group_initials(config_));
      for (const std::string& warning : schedule->warnings()) diagnostics_.warning(block.variant_place, warning);
    } catch (const Error& error) {
      diagnostics_.error(block.variant_place, error.what());
    }
  }

  /// As a reader of the file would have it, so that a written configuration loads to an equal one.
  [[nodiscard]] ParamValue run_steps_as(const std::string& name) const {
    for (const Field& field : sched::fields_of(config_.scheduler.type))
      if (field.name == name && field.type == FieldType::integer) return config_.run.steps;
    return static_cast<double>(config_.run.steps);
  }

  [[nodiscard]] bool takes_groups(const std::string& name) const {
    for (const Field& field : sched::fields_of(config_.scheduler.type))
      if (field.name == name) return field.type == FieldType::number_or_list;
    return false;
  }

  JobConfig& config_;
  const Values& values_;
  Diagnostics& diagnostics_;
};

std::string shown(const fs::path& path) { return path.lexically_normal().string(); }

/// Reads the file that `deepspeed` names and puts its keys into the job.
void merge_deepspeed(Node& root, const std::string& folder, const std::vector<std::string>& overrides, LoadedJob& job,
                     Diagnostics& diagnostics) {
  const Node* named = root.find("deepspeed");
  if (named == nullptr || named->kind != Node::Kind::scalar) return;
  DeepSpeedReport report;
  report.path = shown(fs::path(folder) / named->text);
  Node file;
  try {
    file = read_document(report.path, diagnostics);
  } catch (const Error& error) {
    diagnostics.error(named->place, error.what(), "the path is relative to the job file");
    return;
  }
  for (const std::string& option : overrides) apply_override(file, option, diagnostics);
  filter_deepspeed(file, engine_keys(), report, diagnostics);
  for (Member& member : file.members) {
    if (const Node* twice = root.find(member.key); twice != nullptr) {
      const Member& first =
          *std::find_if(root.members.begin(), root.members.end(), [&](const Member& m) { return m.key == member.key; });
      diagnostics.error(first.key_place,
                        fmt::format("'{}' is given here and in {}", member.key, to_string(member.key_place)),
                        "keep one of the two, or override it with --set");
    } else {
      root.members.push_back(std::move(member));
    }
  }
  job.deepspeed = std::move(report);
}

LoadedJob load(Node root, const std::string& name, const std::string& folder, const std::vector<std::string>& overrides,
               Diagnostics& diagnostics) {
  // A text that is not even YAML gives one error, not one for every key that is missing because of it.
  if (root.kind == Node::Kind::null) diagnostics.throw_if_errors();
  LoadedJob job;
  job.path = name;
  std::vector<std::string> for_deepspeed;
  for (const std::string& option : overrides)
    if (!is_engine_key(override_section(option))) apply_override(root, option, diagnostics);
  const bool has_deepspeed = root.find("deepspeed") != nullptr;
  for (const std::string& option : overrides) {
    if (!is_engine_key(override_section(option))) continue;
    if (has_deepspeed)
      for_deepspeed.push_back(option);
    else
      apply_override(root, option, diagnostics);
  }
  refuse_deepspeed_keys(root, diagnostics);
  merge_deepspeed(root, folder, for_deepspeed, job, diagnostics);

  const Values values = validate(root, job_section(), "", diagnostics);
  Fill fill(values);
  table::job(job.config, fill);
  if (job.config.run.name.empty() && values.section("run").find("name") == nullptr)
    job.config.run.name = fs::path(name).stem().string();
  Checks(job.config, values, diagnostics).run();
  diagnostics.throw_if_errors();

  TextDataConfig& text = job.config.data.text;
  if (job.config.data.type == "text") text.path = shown(fs::absolute(fs::path(folder) / text.path));
  job.warnings = diagnostics.warnings();
  return job;
}

}  // namespace

LoadedJob load_job(const std::string& path, const std::vector<std::string>& overrides) {
  Diagnostics diagnostics;
  Node root = read_document(path, diagnostics);
  return load(std::move(root), path, fs::path(path).parent_path().string(), overrides, diagnostics);
}

LoadedJob load_job_text(const std::string& name, const std::string& text, const std::string& folder,
                        const std::vector<std::string>& overrides) {
  Diagnostics diagnostics;
  Node root = parse_document(name, text, syntax_of(name, text), diagnostics);
  return load(std::move(root), name, folder, overrides, diagnostics);
}

std::vector<sched::GroupInitial> group_initials(const JobConfig& config) {
  const Params& params = config.optimizer.params;
  sched::GroupInitial rest;
  rest.lr = params.number("lr", 1e-3);
  rest.weight_decay = params.number("weight_decay", 0);
  rest.has_betas = config.optimizer.type != "SGD";
  if (rest.has_betas) {
    const auto betas = params.has("betas") ? params.per_group("betas", 2, 0) : std::vector<double>{0.9, 0.999};
    rest.beta1 = betas[0];
    rest.beta2 = betas[1];
  } else {
    rest.momentum = params.number("momentum", 0);
  }
  std::vector<sched::GroupInitial> groups = {rest};
  for (const ParameterGroupConfig& group : config.parameter_groups) {
    sched::GroupInitial initial = rest;
    initial.lr = group.lr.value_or(rest.lr);
    initial.weight_decay = group.weight_decay.value_or(rest.weight_decay);
    initial.momentum = group.momentum.value_or(rest.momentum);
    if (group.betas) {
      initial.beta1 = (*group.betas)[0];
      initial.beta2 = (*group.betas)[1];
    }
    groups.push_back(initial);
  }
  return groups;
}

}  // namespace lockstep::job
