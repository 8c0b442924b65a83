#include <map>
#include <type_traits>

#include "core/error.hpp"
#include "job/fields.hpp"
#include "job/job.hpp"

namespace lockstep::job {
namespace {

const char* const one_bit =
    "it compresses gradients between the ranks; this version always exchanges them in full. Adam with the same lr "
    "follows the same schedule";

Field lr_field() {
  return {.name = "lr",
          .type = FieldType::number,
          .default_text = "0.001",
          .doc = "Learning rate; a scheduler starts from it or replaces it.",
          .min = 0};
}

Field weight_decay_field(const char* doc) {
  return {.name = "weight_decay", .type = FieldType::number, .default_text = "0", .doc = doc, .min = 0};
}

Fields adam_fields(bool always_decoupled) {
  Fields fields = {
      lr_field(),
      {.name = "betas",
       .type = FieldType::number_list,
       .default_text = "[0.9, 0.999]",
       .doc = "Averaging factors of the gradient and of its square.",
       .min = 0,
       .max = 1,
       .max_open = true,
       .length = 2},
      {.name = "eps",
       .type = FieldType::number,
       .default_text = "1e-08",
       .doc = "Added to the root of the second moment, after bias correction.",
       .min = 0},
      weight_decay_field(always_decoupled ? "Decoupled decay: p <- p - lr * weight_decay * p."
                                          : "Decoupled decay, unless adam_w_mode is false."),
      {.name = "bias_correction",
       .type = FieldType::boolean,
       .default_text = "true",
       .doc = "Corrects the moments of the first steps for their start at zero."},
  };
  fields.push_back({.name = "adam_w_mode",
                    .type = FieldType::boolean,
                    .default_text = "true",
                    .doc = always_decoupled ? "Without effect: AdamW always decouples the decay, as in DeepSpeed."
                                            : "false: weight decay is added to the gradient (L2) instead."});
  return fields;
}

Fields sgd_fields() {
  return {
      lr_field(),
      {.name = "momentum",
       .type = FieldType::number,
       .default_text = "0",
       .doc = "Factor of the previous step's direction.",
       .min = 0,
       .max = 1,
       .max_open = true},
      {.name = "dampening",
       .type = FieldType::number,
       .default_text = "0",
       .doc = "The gradient enters the momentum buffer times one minus this; not in the first step.",
       .min = 0,
       .max = 1},
      weight_decay_field("Added to the gradient as weight_decay * p."),
      {.name = "nesterov",
       .type = FieldType::boolean,
       .default_text = "false",
       .doc = "Nesterov momentum; needs momentum above 0 and dampening 0."},
  };
}

struct OptimizerTable {
  const char* name;
  const char* doc;
  bool ignore_case;  // DeepSpeed compares its own names without case and torch's with it
  Fields fields;
};

const std::vector<OptimizerTable>& optimizers() {
  static const std::vector<OptimizerTable> tables = {
      {"Adam", "Adam with decoupled weight decay, which is what DeepSpeed's Adam is; adam_w_mode: false for L2.", true,
       adam_fields(false)},
      {"AdamW", "Adam with decoupled weight decay.", true, adam_fields(true)},
      {"SGD", "Stochastic gradient descent, with torch's rule for momentum.", false, sgd_fields()},
  };
  return tables;
}

std::string scheduler_doc(const std::string& type) {
  static const std::map<std::string, std::string> docs = {
      {"LRRangeTest", "The rate grows without end, to find the largest that still trains."},
      {"OneCycle", "One rise and fall of the rate, with the momentum moving against it, then a decay."},
      {"WarmupLR", "A ramp, then constant. The first two updates use warmup_min_lr."},
      {"WarmupDecayLR", "A ramp, then a straight line down to warmup_min_lr."},
      {"WarmupCosineLR", "A ramp, then half a cosine down; it scales the optimizer's lr."},
      {"Constant", "The optimizer's lr times a factor."},
      {"LinearDecay", "A straight line from the optimizer's lr to a part of it."},
      {"CosineDecay", "Half a cosine from the optimizer's lr to a part of it, with restarts on request."},
      {"StepDecay", "The optimizer's lr, multiplied by gamma every step_size updates."},
  };
  const auto doc = docs.find(type);
  return doc == docs.end() ? "docs/schedulers.md has the formula." : doc->second;
}

/// Walks the table and builds the section tree; defaults come from the members.
class Describe {
 public:
  explicit Describe(Section& out) : out_(out) {}

  template <class T>
  void field(const T& member, Field field) {
    set_type(member, field);
    if (field.default_text.empty() && !field.required) field.default_text = default_text(member);
    out_.fields.push_back(std::move(field));
  }

  template <class Config, class Visit>
  void section(const table::About& about, const Config& config, Visit visit) {
    out_.sections.push_back(make(about, config, visit));
  }

  template <class... Alternatives>
  void variant(const table::About& about, const std::string&, const Alternatives&... alternatives) {
    Section section{.name = about.name, .doc = about.doc, .required = about.required};
    section.variant_key = "type";
    section.variant_doc = "Decides the other keys.";
    (section.variants.push_back(make(alternatives.about, alternatives.config, alternatives.visit)), ...);
    out_.sections.push_back(std::move(section));
  }

  void optimizer(const TypedParams&) {
    Section section{.name = "optimizer", .doc = "How gradients change the weights. Absent: AdamW with its defaults."};
    section.variant_key = "type";
    section.variant_doc = "Adam and AdamW may be spelled in any case, SGD not, as in DeepSpeed.";
    for (const OptimizerTable& optimizer : optimizers()) {
      Section params{.name = "params", .doc = "Parameters of the optimizer.", .fields = optimizer.fields};
      params.advice["max_grad_norm"] = "clipping is the top-level key 'gradient_clipping'";
      Section variant{.name = optimizer.name, .doc = optimizer.doc, .ignore_case = optimizer.ignore_case};
      variant.sections.push_back(std::move(params));
      section.variants.push_back(std::move(variant));
    }
    for (const char* name : {"OneBitAdam", "ZeroOneAdam", "OneBitLamb"}) section.refused_variants[name] = one_bit;
    for (const char* name : {"Lamb", "Lion", "Muon", "Adagrad", "MuAdam", "MuAdamW", "MuSGD", "RMSprop", "Adamax"})
      section.refused_variants[name] = "this version has Adam, AdamW and SGD";
    section.nullable = true;
    section.advice["scheduler"] = "it belongs at the top level, beside 'optimizer'";
    out_.sections.push_back(std::move(section));
  }

  void scheduler(const SchedulerConfig&) {
    Section section{.name = "scheduler", .doc = "The learning rate over the run. Absent: the optimizer's lr always."};
    section.variant_key = "type";
    section.variant_doc = "Case-sensitive, as in DeepSpeed; docs/schedulers.md has the formulas.";
    for (const std::string& type : sched::types()) {
      Section params{.name = "params", .doc = "Parameters of the scheduler.", .fields = sched::fields_of(type)};
      for (Field& field : params.fields)
        if (field.name == "total_num_steps" || field.name == "total_steps") {
          field.or_auto = true;
          if (field.doc.find("auto") == std::string::npos) field.doc += " auto: run.steps.";
        }
      Section variant{.name = type, .doc = scheduler_doc(type)};
      variant.sections.push_back(std::move(params));
      section.variants.push_back(std::move(variant));
    }
    section.nullable = true;
    out_.sections.push_back(std::move(section));
  }

  void groups(const std::vector<ParameterGroupConfig>&) {
    Section section{.name = "parameter_groups",
                    .doc =
                        "Parameters with values of their own. Group 0 is every parameter that no group matches; a "
                        "pattern that matches nothing is an error.",
                    .list = true,
                    .nullable = true};
    const ParameterGroupConfig none;
    Describe inner(section);
    table::group(none, inner);
    out_.sections.push_back(std::move(section));
  }

 private:
  template <class Config, class Visit>
  static Section make(const table::About& about, const Config& config, Visit visit) {
    Section section{.name = about.name, .doc = about.doc, .required = about.required};
    Describe inner(section);
    visit(config, inner);
    return section;
  }

  template <class T>
  struct Inner {
    using type = T;
  };
  template <class T>
  struct Inner<std::optional<T>> {
    using type = T;
  };

  template <class T>
  static void set_type(const T&, Field& field) {
    using Value = typename Inner<T>::type;
    if constexpr (std::is_same_v<Value, bool>) field.type = FieldType::boolean;
    if constexpr (std::is_same_v<Value, std::int64_t>) field.type = FieldType::integer;
    if constexpr (std::is_same_v<Value, double>) field.type = FieldType::number;
    if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>) field.type = FieldType::integer_list;
    if constexpr (std::is_same_v<Value, std::vector<double>>) field.type = FieldType::number_list;
    if constexpr (std::is_same_v<Value, std::vector<std::string>>) field.type = FieldType::text_list;
    if constexpr (std::is_same_v<Value, std::string>)
      if (!field.choices.empty()) field.type = FieldType::choice;
  }

  static std::string default_text(const std::string& v) { return v.empty() ? "" : to_yaml(v); }
  template <class T>
  static std::string default_text(const std::vector<T>& v) {
    ParamValue::List list;
    for (const T& entry : v) list.emplace_back(entry);
    return list.empty() ? "" : to_yaml(list);
  }
  template <class T>
  static std::string default_text(const std::optional<T>&) {
    return "";
  }
  template <class T>
  static std::string default_text(const T& v) {
    return to_yaml(v);
  }

  Section& out_;
};

Section make_job_section() {
  Section root;
  root.name = "job";
  root.doc =
      "A job is one YAML or JSON file. Numbers are decimal and may be written `1e-4` or `5e8`; booleans are `true` and "
      "`false`; every key is checked, and an unknown one is an error.";
  const JobConfig defaults;
  Describe describe(root);
  table::job(defaults, describe);
  root.fields.push_back({.name = "deepspeed",
                         .type = FieldType::path,
                         .doc =
                             "A DeepSpeed configuration file, relative to the job file, in place of the keys that the "
                             "two have in common."});
  root.advice = {
      {"lr_scheduler", "did you mean 'scheduler'?"},
      {"lr", "the learning rate is optimizer.params.lr"},
      {"learning_rate", "the learning rate is optimizer.params.lr"},
      {"weight_decay", "it belongs to optimizer.params"},
      {"betas", "it belongs to optimizer.params"},
      {"max_grad_norm", "did you mean 'gradient_clipping'?"},
      {"batch_size", "did you mean 'train_batch_size'?"},
      {"micro_batch_size", "did you mean 'train_micro_batch_size_per_gpu'?"},
      {"zero_stage", "write zero_optimization: {stage: ...}"},
      {"stage", "write zero_optimization: {stage: ...}"},
      {"loss_scale", "it belongs to fp16"},
      {"params", "it belongs into optimizer or scheduler"},
  };
  for (const Section& section : root.sections)
    if (section.name == "run" || section.name == "comm")
      for (const Field& field : section.fields) root.advice.emplace(field.name, "it belongs to " + section.name);
  // A key in the wrong block: say where it belongs.
  for (Section& section : root.sections) {
    for (const Section& other : root.sections)
      if (other.name == "run" || other.name == "comm")
        for (const Field& field : other.fields) section.advice.emplace(field.name, "it belongs to " + other.name);
    for (const Field& field : root.fields) section.advice.emplace(field.name, "it belongs to the top level");
  }
  for (Section& section : root.sections)
    if (section.name == "bf16")
      for (const char* key : {"loss_scale", "loss_scale_window", "initial_scale_power", "hysteresis", "min_loss_scale"})
        section.advice[key] = "bf16 needs no loss scaling; this key belongs to fp16";
  return root;
}

}  // namespace

const Section& job_section() {
  static const Section section = make_job_section();
  return section;
}

const Fields& optimizer_fields(const std::string& type) {
  for (const OptimizerTable& optimizer : optimizers())
    if (type == optimizer.name) return optimizer.fields;
  fail(ErrorKind::config, "there is no optimizer '{}'; this version has Adam, AdamW and SGD", type);
}

}  // namespace lockstep::job
