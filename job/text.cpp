#include <fmt/format.h>

#include <map>

#include "core/text.hpp"
#include "job/job.hpp"
#include "job/listing.hpp"

namespace lockstep::job {
namespace {

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
  for (const DeepSpeedReport::Key& one : report.autos) {
    const auto now = values.find(one.key);
    autos.push_back(fmt::format("{}: {}", one.key, now == values.end() ? "without effect here" : now->second));
  }
  std::vector<std::string> acted_on, without_effect;
  for (const DeepSpeedReport::Key& one : report.acted_on) acted_on.push_back(one.key);
  for (const DeepSpeedReport::Key& one : report.without_effect) without_effect.push_back(one.key + ": " + one.why);
  list("acted on", acted_on, ", ");
  list("no effect here", without_effect, "");
  list("auto, now", autos, "");
  for (std::string& line : lines) line = printable(line);
  return lines;
}

std::string minimal_yaml(const JobConfig& config) { return print(list_minimal(config)); }

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
