#include "job/checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include "core/error.hpp"
#include "core/text.hpp"
#include "job/hf_config.hpp"

namespace lockstep::job {

using namespace config;

namespace {

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

/// The types of data that a model can be trained on.
const std::vector<std::string>& data_of(const std::string& model) {
  static const std::map<std::string, std::vector<std::string>> types = {
      {"gpt2", {"text", "tokens"}},
      {"mlp", {"clusters", "images", "csv"}},
      {"convnet", {"images"}},
      {"custom", {"custom", "text", "tokens", "clusters", "images", "csv"}}};
  return types.at(model);
}

/// What the chosen optimizer's block says of what schedules and parameter groups may change; null: it has none.
struct Hyperparameters {
  double lr = 0;
  double weight_decay = 0;
  const std::vector<double>* betas = nullptr;
  const double* momentum = nullptr;
};

Hyperparameters hyperparameters_of(const OptimizerConfig& o) {
  if (o.type == "SGD") return {o.sgd.lr, o.sgd.weight_decay, nullptr, &o.sgd.momentum};
  if (o.type == "Lion") return {o.lion.lr, o.lion.weight_decay, &o.lion.betas, nullptr};
  if (o.type == "Adagrad") return {o.adagrad.lr, o.adagrad.weight_decay, nullptr, nullptr};
  if (o.type == "Muon") return {o.muon.lr, o.muon.weight_decay, &o.muon.betas, &o.muon.momentum};
  if (o.type == "Lamb") return {o.lamb.lr, o.lamb.weight_decay, &o.lamb.betas, nullptr};
  return {o.adam.lr, o.adam.weight_decay, &o.adam.betas, nullptr};
}

class Checks {
 public:
  Checks(JobConfig& config, const Values& values, Diagnostics& diagnostics)
      : config_(config), values_(values), diagnostics_(diagnostics) {}

  std::shared_ptr<const sched::Schedule> run() {
    model();
    sizes();
    run_name();
    precision();
    batch();
    trace();
    comm();
    optimizer();
    groups();
    scheduler();
    // A schedule is only made from values that are right in themselves.
    return diagnostics_.error_count() == 0 ? schedule() : nullptr;
  }

 private:
  void model() {
    const Values& block = values_.section("model");
    if (config_.model.type == "gpt2") gpt2(block);
    if (config_.model.type == "convnet" && config_.model.convnet.kernel % 2 == 0)
      diagnostics_.error(
          block.position_of("kernel"),
          fmt::format("model.kernel: {} is even; the result is centred on a pixel", config_.model.convnet.kernel),
          fmt::format("take {}", config_.model.convnet.kernel + 1));
    const Values& data = values_.section("data");
    if (config_.data.type == "text") text(data);
    tokens(data);
    const std::vector<std::string>& fitting = data_of(config_.model.type);
    if (block.type.empty() || data.type.empty() || std::ranges::find(fitting, config_.data.type) != fitting.end())
      return;
    diagnostics_.error(data.type_position,
                       fmt::format("data.type {} does not fit model.type {}", config_.data.type, config_.model.type),
                       fmt::format("{} needs data of type {}", config_.model.type, fmt::join(fitting, " or ")));
  }

  void text(const Values& data) {
    const TextDataConfig& text = config_.data.text;
    const bool subwords = text.tokenizer == "gpt2";
    for (const auto& [key, value] : {std::pair{"vocab", text.vocab}, {"merges", text.merges}}) {
      if (subwords && !value)
        diagnostics_.error(data.position_of("tokenizer"), fmt::format("data.tokenizer: gpt2 needs data.{}", key),
                           "give the files vocab.json and merges.txt of a published model, or of your own");
      if (!subwords && value)
        diagnostics_.error(data.position_of(key),
                           fmt::format("data.{} is for tokenizer gpt2, not {}", key, text.tokenizer),
                           "remove it, or set data.tokenizer: gpt2");
    }
  }

  void tokens(const Values& block) {
    const TokensDataConfig& tokens = config_.data.tokens;
    if (tokens.validation_path && tokens.validation_fraction > 0)
      diagnostics_.error(block.position_of("validation_fraction"),
                         "data: validation_path and validation_fraction are both given", "give one of the two");
  }

  void gpt2(const Values& block) {
    Gpt2Config& gpt2 = config_.model.gpt2;
    for (const Preset& preset : presets) {
      if (gpt2.preset != preset.name) continue;
      if (block.find("n_layer") == nullptr) gpt2.n_layer = preset.n_layer;
      if (block.find("n_head") == nullptr) gpt2.n_head = preset.n_head;
      if (block.find("n_embd") == nullptr) gpt2.n_embd = preset.n_embd;
    }
    if (gpt2.init_from) hugging_face(block);
    if (gpt2.n_embd % gpt2.n_head != 0)
      diagnostics_.error(
          block.position_of("n_head"),
          fmt::format("model.n_head: {} heads do not divide n_embd {}", gpt2.n_head, gpt2.n_embd),
          fmt::format("with {} heads take n_embd {}", gpt2.n_head, (gpt2.n_embd / gpt2.n_head + 1) * gpt2.n_head));
  }

  /// Sizes come from the folder. Where all of them stand in the file (as in that of a run) it need not be there any
  /// more.
  void hugging_face(const Values& block) {
    Gpt2Config& gpt2 = config_.model.gpt2;
    const bool text = config_.data.type == "text";
    if (text && config_.data.text.tokenizer != "gpt2")
      diagnostics_.warning(
          values_.section("data").position_of("tokenizer"),
          fmt::format("the model of init_from was trained with subwords, and data.tokenizer {} gives its "
                      "tokens another meaning; tokenizer gpt2 with its vocab.json and merges.txt does not",
                      config_.data.text.tokenizer));
    const char* const keys[] = {"n_layer", "n_head", "n_embd", "vocab_size", "block_size"};
    if (std::ranges::all_of(keys, [&](const char* key) { return block.find(key) != nullptr; })) return;
    try {
      const HfGpt2 there = read_hf_gpt2(*gpt2.init_from);
      const auto take = [&](const char* key, std::int64_t& mine, std::int64_t theirs, bool smaller_fits) {
        if (block.find(key) != nullptr && !(smaller_fits && mine < theirs) && mine != theirs)
          diagnostics_.error(
              block.position_of(key),
              fmt::format("model.{} is {}, but the model of init_from has {}", key, mine, theirs),
              fmt::format("remove it: it is the folder's{}", smaller_fits ? ", or give a smaller one" : ""));
        if (block.find(key) == nullptr) mine = theirs;
      };
      std::int64_t vocabulary = gpt2.vocab_size.value_or(0);
      take("n_layer", gpt2.n_layer, there.n_layer, false);
      take("n_head", gpt2.n_head, there.n_head, false);
      take("n_embd", gpt2.n_embd, there.n_embd, false);
      take("vocab_size", vocabulary, there.vocab_size, false);
      take("block_size", gpt2.block_size, there.n_positions, true);
      gpt2.vocab_size = vocabulary;
    } catch (const Error& error) {
      diagnostics_.error(block.position_of("init_from"), fmt::format("model.init_from: {}", error.what()));
    }
  }

  /// What each field allows alone may be too much together. Whether this machine has the memory is not asked here.
  void sizes() {
    constexpr double most_bytes = 8.0 * (1 << 30);
    const ClustersDataConfig& points = config_.data.clusters;
    const double bytes = static_cast<double>(points.samples) * static_cast<double>(points.features) * sizeof(float);
    if (config_.data.type == "clusters" && bytes > most_bytes)
      diagnostics_.error(
          values_.section("data").position_of("samples"),
          fmt::format("data.samples: {} points of {} features are {}, more than the {} that generated data may take",
                      points.samples, points.features, human_bytes(bytes), human_bytes(most_bytes)),
          fmt::format("with {} features at most {}", points.features,
                      static_cast<std::int64_t>(most_bytes / sizeof(float)) / points.features));
    const std::int64_t micro = std::max<std::int64_t>(1, config_.train_micro_batch_size_per_gpu.value_or(1));
    constexpr double most_symbols = 2147483647;
    const double symbols = static_cast<double>(micro) * static_cast<double>(config_.model.gpt2.block_size);
    if (config_.model.type == "gpt2" && symbols > most_symbols)
      diagnostics_.error(values_.position_of("train_micro_batch_size_per_gpu"),
                         fmt::format("train_micro_batch_size_per_gpu {} x model.block_size {} is {:.0f} symbols at "
                                     "once; a rank takes at most {:.0f}",
                                     micro, config_.model.gpt2.block_size, symbols, most_symbols),
                         "make one of the two smaller");
  }

  void run_name() {
    const std::string& name = config_.run.name;
    const bool good = !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
    });
    if (!good)
      diagnostics_.error(values_.section("run").position_of("name"),
                         fmt::format("run.name: '{}' cannot name a folder", name),
                         "letters, digits, '.', '_' and '-', not beginning with '.'");
  }

  void precision() {
    if (config_.fp16.enabled && config_.bf16.enabled)
      diagnostics_.error(values_.section("bf16").position_of("enabled"), "fp16 and bf16 are both enabled",
                         "turn one of the two off");
    if (config_.fp16.enabled && config_.fp16.hysteresis == 0)
      diagnostics_.warning(values_.section("fp16").position_of("hysteresis"),
                           "with hysteresis 0 the loss scale never falls, as in DeepSpeed; 1 halves it at once");
  }

  void trace() {
    const auto& steps = config_.run.trace.steps;
    if (steps && steps->front() > steps->back())
      diagnostics_.error(
          values_.section("run").section("trace").position_of("steps"),
          fmt::format("run.trace.steps: the first, {}, is after the last, {}", steps->front(), steps->back()),
          "write [first, last]");
    if (steps && config_.run.steps > 0 && steps->front() > config_.run.steps)
      diagnostics_.error(
          values_.section("run").section("trace").position_of("steps"),
          fmt::format("run.trace.steps begins at {}, but the run has {} steps", steps->front(), config_.run.steps));
  }

  void batch() {
    const auto& train = config_.train_batch_size;
    const auto& given_micro = config_.train_micro_batch_size_per_gpu;
    const auto& accumulation = config_.gradient_accumulation_steps;
    const bool any_bad = diagnostics_.error_count() > 0;
    if (config_.micro_batch_is_auto()) {
      const auto place = values_.position_of("train_micro_batch_size_per_gpu");
      if (!train && !any_bad)
        diagnostics_.error(place,
                           "train_micro_batch_size_per_gpu: auto needs train_batch_size: how many samples a "
                           "step has must not follow from a machine's memory",
                           "add train_batch_size: the samples of one step over all ranks");
      if (accumulation)
        diagnostics_.error(place,
                           fmt::format("train_micro_batch_size_per_gpu: auto, but gradient_accumulation_steps "
                                       "{} and train_batch_size leave one size only",
                                       *accumulation),
                           "leave one of the two out");
      if (config_.run.determinism == "invariant")
        diagnostics_.error(place,
                           "train_micro_batch_size_per_gpu: auto with run.determinism: invariant: a step's sums "
                           "are defined by its micro-batches, which must not follow from a machine's memory",
                           "give a number");
      return;
    }
    const std::optional<std::int64_t> micro = given_micro;
    if (!train && !micro && !any_bad) {
      const bool named = values_.values.contains("train_batch_size");
      diagnostics_.error(values_.position_of(named ? "train_batch_size" : "gradient_accumulation_steps"),
                         "train_batch_size or train_micro_batch_size_per_gpu is required",
                         named ? "write a number here: the samples of one step over all ranks"
                               : "add train_batch_size: the samples of one step over all ranks");
    }
    if (config_.run.determinism == "invariant" && (!train || !micro) && !any_bad)
      diagnostics_.error(values_.section("run").position_of("determinism"),
                         "run.determinism: invariant needs train_batch_size and train_micro_batch_size_per_gpu: a "
                         "step's sums are defined by its micro-batches, not by the ranks that share them",
                         train ? "add train_micro_batch_size_per_gpu" : "add train_batch_size");
    const std::int64_t unit = micro.value_or(1);
    if (train && *train / unit * unit != *train)
      diagnostics_.error(
          values_.position_of("train_batch_size"),
          fmt::format("train_batch_size {} is not a multiple of train_micro_batch_size_per_gpu {}", *train, unit));
    else if (train && accumulation && *train / unit % *accumulation != 0)
      diagnostics_.error(values_.position_of("train_batch_size"),
                         fmt::format("train_batch_size {} is not a multiple of {} micro x {} accumulation", *train,
                                     unit, *accumulation));
  }

  void comm() {
    if (config_.run.determinism == "invariant" &&
        (config_.prescale_gradients || config_.gradient_predivide_factor != 1)) {
      const char* key = config_.prescale_gradients ? "prescale_gradients" : "gradient_predivide_factor";
      diagnostics_.error(values_.position_of(key),
                         fmt::format("{} does not go with run.determinism: invariant, where no gradient may depend on "
                                     "the number of ranks before all are summed",
                                     key),
                         "remove it, or write determinism: exact");
    }
    if (config_.run.determinism == "invariant" && config_.wire() != "fp32") {
      const bool own = !config_.communication_data_type.has_value();
      diagnostics_.error(
          own ? values_.section("comm").position_of("wire") : values_.position_of("communication_data_type"),
          fmt::format("{}: {} does not go with run.determinism: invariant, where what is rounded on its "
                      "way would depend on how many ranks there are",
                      own ? "comm.wire" : "communication_data_type", config_.wire()),
          "write fp32, or determinism: exact");
    }
    if (config_.comm.ranks > 1 && (config_.comm.backend == "mpi" || config_.comm.backend == "nccl"))
      diagnostics_.error(
          values_.section("comm").position_of("ranks"),
          fmt::format("comm.ranks is for backend local; with {} the launcher says it", config_.comm.backend),
          fmt::format("remove it and start with mpirun -n {}", config_.comm.ranks));
  }

  void optimizer() {
    const OptimizerConfig& optimizer = config_.optimizer;
    const Values& params = values_.section("optimizer").section("params");
    if (optimizer.type == "SGD" && optimizer.sgd.nesterov &&
        (optimizer.sgd.momentum <= 0 || optimizer.sgd.dampening != 0))
      diagnostics_.error(params.position_of("nesterov"),
                         "optimizer.params.nesterov needs momentum above 0 and dampening 0");
    if (optimizer.type == "Lamb" && optimizer.lamb.min_coeff > optimizer.lamb.max_coeff)
      diagnostics_.error(params.position_of("min_coeff"),
                         fmt::format("optimizer.params.min_coeff {} is above max_coeff {}", optimizer.lamb.min_coeff,
                                     optimizer.lamb.max_coeff));
    if (optimizer.type == "AdamW" && !optimizer.adam.adam_w_mode)
      diagnostics_.warning(params.position_of("adam_w_mode"),
                           "AdamW always decouples the decay; for L2 use type Adam with adam_w_mode: false");
  }

  void groups() {
    const auto list = values_.lists.find("parameter_groups");
    if (list == values_.lists.end()) return;
    const Hyperparameters has = hyperparameters_of(config_.optimizer);
    for (const Values& group : list->second)
      for (const bool betas : {true, false}) {
        const char* key = betas ? "betas" : "momentum";
        if (group.find(key) == nullptr || (betas ? has.betas != nullptr : has.momentum != nullptr)) continue;
        diagnostics_.error(group.position_of(key),
                           fmt::format("parameter_groups: {} has no {}", config_.optimizer.type, key),
                           has.betas != nullptr      ? config_.optimizer.type + " has betas"
                           : has.momentum != nullptr ? config_.optimizer.type + " has momentum"
                                                     : "");
      }
  }

  void scheduler() {
    if (!config_.scheduler.present) return;
    Params& params = config_.scheduler.params;
    params = sched::without_auto(config_.scheduler.type, params, config_.run.steps);
    const Values& given = values_.section("scheduler").section("params");
    for (const Field& field : sched::fields_of(config_.scheduler.type)) {
      const ParamValue* value = params.find(field.name);
      if (value == nullptr) continue;
      if (field.or_auto) total_steps(params.number(field.name), given.position_of(field.name));
      if (const auto* list = std::get_if<ParamValue::List>(&value->value); list != nullptr)
        if (field.type == FieldType::number_or_list) one_a_group(field, list->size(), given.position_of(field.name));
    }
  }

  void total_steps(double steps, const Position& position) {
    const std::int64_t run = config_.run.steps;
    if (steps > static_cast<double>(run))
      diagnostics_.warning(position, fmt::format("the run ends after {} steps, before the schedule's {}", run, steps));
  }

  void one_a_group(const Field& field, std::size_t entries, const Position& position) {
    const std::size_t groups = config_.parameter_groups.size() + 1;
    if (entries == groups) return;
    diagnostics_.error(position,
                       fmt::format("scheduler.params.{}: {} entries for {} parameter group{}", field.name, entries,
                                   groups, groups == 1 ? "" : "s"),
                       groups == 1 ? "give one number" : fmt::format("give one number or {}", groups));
  }

  std::shared_ptr<const sched::Schedule> schedule() {
    const Position position = values_.section("scheduler").type_position;
    try {
      auto schedule = make_schedule(config_);
      for (const std::string& warning : schedule->warnings()) diagnostics_.warning(position, warning);
      if (schedule->metric_state()) evaluations(*schedule, position);
      return schedule;
    } catch (const Error& error) {
      diagnostics_.error(position, error.what());
      return nullptr;
    }
  }

  /// A schedule that reads val_loss needs some.
  void evaluations(const sched::Schedule& schedule, const Position& position) {
    const std::int64_t every = config_.run.eval_every, steps = config_.run.steps;
    if (every == 0)
      diagnostics_.error(
          position, fmt::format("scheduler {} reads val_loss, and run.eval_every 0 evaluates none", schedule.type()),
          "give run.eval_every the steps between two evaluations");
    else if (every >= steps)
      diagnostics_.warning(position, fmt::format("scheduler {} never acts: run.eval_every {} evaluates val_loss once, "
                                                 "after the last of {} steps",
                                                 schedule.type(), every, steps));
  }

  JobConfig& config_;
  const Values& values_;
  Diagnostics& diagnostics_;
};

/// The optimizer's values of every parameter group, group 0 first: where schedules start from.
std::vector<sched::GroupInitial> group_initials(const JobConfig& config) {
  const Hyperparameters optimizer = hyperparameters_of(config.optimizer);
  sched::GroupInitial rest;
  // Where there are both (Muon), momentum is what schedules cycle: its matrices are most of a model.
  rest.has_betas = optimizer.betas != nullptr && optimizer.momentum == nullptr;
  rest.lr = optimizer.lr;
  rest.weight_decay = optimizer.weight_decay;
  if (optimizer.momentum != nullptr) rest.momentum = *optimizer.momentum;
  if (optimizer.betas != nullptr) {
    rest.beta1 = optimizer.betas->at(0);
    rest.beta2 = optimizer.betas->at(1);
  }
  std::vector<sched::GroupInitial> groups = {rest};
  for (const ParameterGroupConfig& group : config.parameter_groups) {
    sched::GroupInitial initial = rest;
    initial.lr = group.lr.value_or(rest.lr);
    initial.weight_decay = group.weight_decay.value_or(rest.weight_decay);
    initial.momentum = group.momentum.value_or(rest.momentum);
    if (group.betas) {
      initial.beta1 = group.betas->at(0);
      initial.beta2 = group.betas->at(1);
    }
    groups.push_back(initial);
  }
  return groups;
}

}  // namespace

std::shared_ptr<const sched::Schedule> complete(JobConfig& config, const Values& values, Diagnostics& diagnostics) {
  return Checks(config, values, diagnostics).run();
}

std::shared_ptr<const sched::Schedule> make_schedule(const JobConfig& config) {
  const SchedulerConfig& scheduler = config.scheduler;
  std::shared_ptr<sched::Schedule> schedule =
      scheduler.present ? sched::make_schedule(scheduler.type, scheduler.params, group_initials(config))
                        : sched::make_constant(group_initials(config));
  schedule->look_ahead(config.run.steps);
  return schedule;
}

}  // namespace lockstep::job
