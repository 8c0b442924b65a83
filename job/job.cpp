#include "job/job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "config/field_value.hpp"
#include "config/override.hpp"
#include "core/error.hpp"
#include "job/checks.hpp"
#include "job/deepspeed.hpp"
#include "job/fields.hpp"
#include "job/schema.hpp"

namespace lockstep::job {

using namespace config;

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
  template <class... Alternatives>
  void variant(const table::About& about, const std::string&, const Alternatives&...) {
    names.push_back(about.name);
  }
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
    const ParamValue* value = values_.find(field.name);
    if (value == nullptr || value->is_null()) return;
    if constexpr (std::is_same_v<T, std::optional<std::int64_t>>)
      if (field.or_auto && field.nullable && *value == ParamValue("auto")) {
        member = 0;  // neither absent nor a number: somebody chooses one
        return;
      }
    assign(member, *value);
  }

  template <class Config, class Visit>
  void section(const table::About& about, Config& config, Visit visit) {
    Fill inner(values_.section(about.name));
    visit(config, inner);
  }

  template <class... Alternatives>
  void variant(const table::About& about, std::string& type, const Alternatives&... alternatives) {
    const Values& block = values_.section(about.name);
    if (block.type.empty()) return;
    type = block.type;
    Fill inner(block);
    const auto fill_if = [&](const auto& alternative) {
      if (alternative.about.name == type) alternative.visit(alternative.config, inner);
    };
    (fill_if(alternatives), ...);
  }

  void scheduler(SchedulerConfig& scheduler) {
    const Values& block = values_.section("scheduler");
    if (block.type.empty()) return;
    scheduler = {true, block.type, with_defaults(sched::fields_of(block.type), block.section("params").params())};
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
    diagnostics.error(named->position, error.what(), "the path is relative to the job file");
    return;
  }
  for (const std::string& option : overrides) apply_override(file, option, diagnostics);
  filter_deepspeed(file, engine_keys(), report, diagnostics);
  report.position = file.position;
  for (Member& member : file.members) {
    if (const Node* twice = root.find(member.key); twice != nullptr) {
      const Member& first =
          *std::find_if(root.members.begin(), root.members.end(), [&](const Member& m) { return m.key == member.key; });
      diagnostics.error(first.key_position,
                        fmt::format("'{}' is given here and in {}", member.key, to_string(member.key_position)),
                        "keep one of the two, or override it with --set");
    } else {
      root.members.push_back(std::move(member));
    }
  }
  job.deepspeed = std::move(report);
}

/// Where the DeepSpeed file has, or should have, the keys that are missing: errors about them point there.
void place_batch_keys(const LoadedJob& job, Values& values) {
  if (!job.deepspeed) return;
  for (const DeepSpeedReport::Key& one : job.deepspeed->autos)
    if (one.key.find('.') == std::string::npos && !values.values.contains(one.key))
      values.values[one.key] = {{}, one.position};
  for (const char* key : {"train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"})
    if (values.values.contains(key)) return;
  values.values["gradient_accumulation_steps"] = {{}, job.deepspeed->position};
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

  Values values = validate(root, job_section(), "", diagnostics);
  place_batch_keys(job, values);
  Fill fill(values);
  table::job(job.config, fill);
  if (job.config.run.name.empty() && values.section("run").find("name") == nullptr)
    job.config.run.name = fs::path(name).stem().string();
  TextDataConfig& text = job.config.data.text;
  // A path that is missing has its own error.
  const auto make_absolute = [&](std::string& file) {
    if (!file.empty()) file = shown(fs::absolute(fs::path(folder) / file));
  };
  const auto of_data = [&](const char* type, std::string& file) {
    if (job.config.data.type == type) make_absolute(file);
  };
  of_data("text", text.path);
  if (text.vocab) of_data("text", *text.vocab);
  if (text.merges) of_data("text", *text.merges);
  of_data("tokens", job.config.data.tokens.path);
  if (std::optional<std::string>& validation = job.config.data.tokens.validation_path; validation)
    of_data("tokens", *validation);
  of_data("images", job.config.data.images.path);
  of_data("csv", job.config.data.csv.path);
  if (std::optional<std::string>& model = job.config.model.gpt2.init_from; model) make_absolute(*model);
  job.schedule = complete(job.config, values, diagnostics);
  diagnostics.throw_if_errors();

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

}  // namespace lockstep::job
