#include "job/listing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "config/field_value.hpp"
#include "config/scalar.hpp"
#include "config/words.hpp"
#include "job/fields.hpp"

namespace lockstep::job {
namespace {

using config::Field;
using config::FieldType;
using config::ParamValue;
using config::to_yaml;

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
    if (field.or_auto && (field.nullable ? v == T(0) : !v)) return ParamValue("auto");
    if (v) return value_of(*v, field);
    return std::nullopt;
  }
  template <class T>
  static std::optional<ParamValue> value_of(const T& v, const Field&) {
    return ParamValue(v);
  }

  std::vector<std::string> path_;
};

}  // namespace

std::vector<Line> list_all(const JobConfig& config) {
  List visitor;
  table::job(config, visitor);
  return std::move(visitor.lines);
}

std::vector<Line> list(const JobConfig& config) {
  std::vector<Line> lines = list_all(config);
  std::erase_if(lines, [](const Line& line) { return line.has_no_value; });
  drop_empty_blocks(lines);
  return lines;
}

std::vector<Line> list_minimal(const JobConfig& config) {
  const auto defaults = defaults_for(config);
  std::vector<Line> kept = list(config);
  std::erase_if(kept, [&](const Line& line) {
    const auto known = defaults.find(line.path);
    return !line.is_block && known != defaults.end() && known->second == line.value;
  });
  drop_empty_blocks(kept);
  return kept;
}

void drop_empty_blocks(std::vector<Line>& lines) {
  // From the inside out.
  for (std::size_t i = lines.size(); i-- > 0;) {
    const bool empty = i + 1 == lines.size() || lines[i + 1].depth <= lines[i].depth;
    if (lines[i].is_block && empty) lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

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

}  // namespace lockstep::job
