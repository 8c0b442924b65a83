#include <fmt/format.h>

#include <map>

#include "config/field_value.hpp"
#include "config/scalar.hpp"
#include "config/words.hpp"
#include "core/text.hpp"
#include "job/fields.hpp"
#include "job/job.hpp"

namespace lockstep::job {
namespace {

using config::Field;
using config::FieldType;
using config::ParamValue;
using config::to_yaml;

/// One line of a listed configuration.
struct Line {
  std::string path;  ///< "run.checkpoint.every"
  std::string key;
  int depth;
  bool is_block;
  std::string value;          ///< YAML; empty for a block
  bool has_default = true;    ///< the key has a default, so it may be left out when equal to it
  bool has_no_value = false;  ///< nothing stands for it in YAML; `value` says what that means
};

/// Walks the table and lists every key.
class List {
 public:
  template <class T>
  void field(const T& member, const Field& field) {
    add(field, value_of(member, field));
  }

  template <class Config, class Visit>
  void section(const table::About& about, const Config& config, Visit visit) {
    open(about.name);
    visit(config, *this);
    close();
  }

  template <class... Alternatives>
  void variant(const table::About& about, const std::string& type, const Alternatives&... alternatives) {
    open(about.name);
    put("type", to_yaml(type), false);
    const auto visit_if = [&](const auto& alternative) {
      if (alternative.about.name == type) alternative.visit(alternative.config, *this);
    };
    (visit_if(alternatives), ...);
    close();
  }

  void scheduler(const SchedulerConfig& scheduler) {
    if (!scheduler.present) return;
    open("scheduler");
    put("type", scheduler.type, false);
    open("params");
    for (const Field& field : sched::fields_of(scheduler.type))
      if (const ParamValue* value = scheduler.params.find(field.name))
        put(field.name, to_yaml(*value), !field.required);
    close();
    close();
  }

  void groups(const std::vector<ParameterGroupConfig>& groups) {
    if (groups.empty()) return;
    std::vector<std::string> blocks;
    for (const ParameterGroupConfig& config : groups) {
      List inner;
      table::group(config, inner);
      std::vector<std::string> parts;
      for (const Line& line : inner.lines)
        if (!line.has_no_value) parts.push_back(line.key + ": " + line.value);
      blocks.push_back(fmt::format("{{{}}}", config::join(parts)));
    }
    put("parameter_groups", fmt::format("[{}]", config::join(blocks)), false);
  }

  std::vector<Line> lines;

 private:
  void open(const std::string& name) {
    lines.push_back({path(name), name, depth(), true, ""});
    path_.push_back(name);
  }
  void close() { path_.pop_back(); }
  void put(const std::string& name, const std::string& value, bool has_default = true) {
    lines.push_back({path(name), name, depth(), false, value, has_default});
  }
  void add(const Field& field, const std::optional<ParamValue>& value) {
    if (value)
      put(field.name, to_yaml(*value), !field.required);
    else
      lines.push_back({path(field.name), field.name, depth(), false,
                       field.default_text.empty() ? "absent" : field.default_text, true, true});
  }

  [[nodiscard]] int depth() const { return static_cast<int>(path_.size()); }
  [[nodiscard]] std::string path(const std::string& name) const {
    std::string text;
    for (const std::string& part : path_) text += part + ".";
    return text + name;
  }

  static std::optional<ParamValue> value_of(const std::string& v, const Field& field) {
    // An empty choice is "not given": it is none of the choices.
    if (v.empty() && field.type == FieldType::choice) return std::nullopt;
    return ParamValue(v);
  }
  template <class T>
  static std::optional<ParamValue> value_of(const std::vector<T>& v, const Field&) {
    ParamValue::List list;
    for (const T& entry : v) list.emplace_back(entry);
    return ParamValue(std::move(list));
  }
  template <class T>
  static std::optional<ParamValue> value_of(const std::optional<T>& v, const Field& field) {
    if (v) return value_of(*v, field);
    if (field.or_auto) return ParamValue("auto");
    return std::nullopt;
  }
  template <class T>
  static std::optional<ParamValue> value_of(const T& v, const Field&) {
    return ParamValue(v);
  }

  std::vector<std::string> path_;
};

std::vector<Line> list_all(const JobConfig& config) {
  List visitor;
  table::job(config, visitor);
  return std::move(visitor.lines);
}

std::vector<Line> list(const JobConfig& config) {
  std::vector<Line> lines = list_all(config);
  std::erase_if(lines, [](const Line& line) { return line.has_no_value; });
  return lines;
}

/// The defaults to compare with: those of the types that `config` has.
std::map<std::string, std::string> defaults_for(const JobConfig& config) {
  JobConfig defaults;
  defaults.model.type = config.model.type;
  defaults.data.type = config.data.type;
  defaults.optimizer.type = config.optimizer.type;
  if (config.scheduler.present)
    defaults.scheduler = {true, config.scheduler.type,
                          config::with_defaults(sched::fields_of(config.scheduler.type), {})};
  std::map<std::string, std::string> values;
  for (const Line& line : list(defaults))
    if (!line.is_block && line.has_default && line.value != "\"\"") values[line.path] = line.value;
  return values;
}

std::string print(const std::vector<Line>& lines) {
  std::string text;
  for (const Line& line : lines) {
    text += std::string(static_cast<std::size_t>(2 * line.depth), ' ');
    if (line.has_no_value) text += "# ";
    text += line.is_block ? fmt::format("{}:\n", line.key) : fmt::format("{}: {}\n", line.key, line.value);
  }
  return text;
}

}  // namespace

std::string effective_yaml(const JobConfig& config) { return print(list(config)); }

std::string flat_text(const JobConfig& config) {
  std::string text;
  for (const Line& line : list(config))
    if (!line.is_block) text += fmt::format("{}: {}\n", line.path, line.value);
  return text;
}

std::string full_yaml(const JobConfig& config) { return print(list_all(config)); }

std::vector<std::string> deepspeed_lines(const LoadedJob& job) {
  if (!job.deepspeed) return {};
  const DeepSpeedReport& report = *job.deepspeed;
  std::vector<std::string> lines = {report.path};
  const auto list = [&lines](const char* title, const std::vector<std::string>& entries, std::string_view separator) {
    constexpr std::size_t widest = 100;
    const std::string indent(std::string_view(title).size() + 2, ' ');
    std::string line;
    for (const std::string& entry : entries) {
      if (!line.empty() && (separator.empty() || line.size() + entry.size() > widest)) {
        lines.push_back(line + (separator.empty() ? "" : ","));
        line.clear();
      }
      if (line.empty())
        line = entry == entries.front() ? fmt::format("{}: ", title) : indent;
      else
        line += separator;
      line += entry;
    }
    if (!line.empty()) lines.push_back(line);
  };
  std::map<std::string, std::string> values;
  for (const Line& line : list_all(job.config)) values[line.path] = line.value;
  std::vector<std::string> autos;
  for (const DeepSpeedReport::Auto& one : report.autos) {
    const auto now = values.find(one.key);
    autos.push_back(fmt::format("{}: {}", one.key, now == values.end() ? "without effect here" : now->second));
  }
  list("acted on", report.acted_on, ", ");
  list("no effect here", report.without_effect, "");
  list("auto, now", autos, "");
  for (std::string& line : lines) line = printable(line);
  return lines;
}

std::string minimal_yaml(const JobConfig& config) {
  const auto defaults = defaults_for(config);
  std::vector<Line> kept;
  for (const Line& line : list(config)) {
    const auto known = defaults.find(line.path);
    if (line.is_block || known == defaults.end() || known->second != line.value) kept.push_back(line);
  }
  // A block without keys goes, from the inside out.
  for (std::size_t i = kept.size(); i-- > 0;) {
    const bool empty = i + 1 == kept.size() || kept[i + 1].depth <= kept[i].depth;
    if (kept[i].is_block && empty) kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return print(kept);
}

std::string diff_from_defaults(const JobConfig& config) {
  const auto defaults = defaults_for(config);
  std::string text;
  for (const Line& line : list(config)) {
    if (line.is_block) continue;
    const auto known = defaults.find(line.path);
    if (known == defaults.end())
      text += fmt::format("{}: {}\n", line.path, line.value);
    else if (known->second != line.value)
      text += fmt::format("{}: {}  (default {})\n", line.path, line.value, known->second);
  }
  return text;
}

}  // namespace lockstep::job
