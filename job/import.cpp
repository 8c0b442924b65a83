#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.hpp"
#include "core/text.hpp"
#include "job/job.hpp"
#include "job/listing.hpp"

namespace lockstep::job {
namespace {

using Key = DeepSpeedReport::Key;

std::string place_of(const Key& key) {
  const bool option = key.position.source != nullptr && key.position.source->is_option;
  return option ? "--set" : fmt::format("line {}", key.position.line);
}

/// Blocks that no DeepSpeed file has.
bool is_own_block(const std::string& path) {
  const std::string block = path.substr(0, path.find('.'));
  return block == "model" || block == "data" || block == "run" || block == "comm" || block == "parameter_groups";
}

std::string lines_text(const std::vector<Line>& lines, const std::map<std::string, std::string>& remarks) {
  std::string text;
  for (const Line& line : lines) {
    text += std::string(static_cast<std::size_t>(2 * line.depth), ' ') + line.key + ":";
    if (!line.is_block) text += " " + line.value;
    if (const auto remark = remarks.find(line.path); remark != remarks.end()) text += "  # " + remark->second;
    text += "\n";
  }
  return text;
}

std::string comment(const std::string& title, const std::vector<std::string>& lines) {
  if (lines.empty()) return {};
  std::string text = "\n# " + title + "\n";
  for (const std::string& line : lines) text += "#   " + printable(line) + "\n";
  return text;
}

}  // namespace

std::string imported_yaml(const LoadedJob& job) {
  require(job.deepspeed.has_value(), "imported_yaml: the job has no DeepSpeed file");
  const DeepSpeedReport& report = *job.deepspeed;
  std::vector<Line> own = list_minimal(job.config);
  std::erase_if(own, [](const Line& line) { return !is_own_block(line.path); });

  std::map<std::string, std::string> remarks;
  for (const Key& key : report.acted_on) remarks[key.key] = place_of(key);
  const auto was_auto = [&](const std::string& path) {
    return std::any_of(report.autos.begin(), report.autos.end(), [&](const Key& key) { return key.key == path; });
  };
  std::vector<Line> engine = list_all(job.config);
  std::erase_if(engine, [&](const Line& line) {
    return is_own_block(line.path) || (!line.is_block && (line.has_no_value || !remarks.contains(line.path)));
  });
  drop_empty_blocks(engine);
  for (Line& line : engine)
    if (!line.is_block && was_auto(line.path)) line.value = "auto";

  std::map<std::string, std::string> values;
  for (const Line& line : list_all(job.config)) values[line.path] = line.value;
  std::vector<std::string> autos, idle;
  for (const Key& key : report.autos) {
    const auto now = values.find(key.key);
    if (!remarks.contains(key.key))
      autos.push_back(fmt::format("{} ({}): {}", key.key, place_of(key),
                                  now == values.end() ? "without effect here" : now->second));
  }
  for (const Key& key : report.without_effect)
    idle.push_back(fmt::format("{} ({}): {}", key.key, place_of(key), key.why));

  std::string text = fmt::format("# A job with the settings of {}.\n", printable(report.path));
  text += "\n# What a DeepSpeed file does not say: yours to change.\n" + lines_text(own, {});
  text += "\n# From that file, each key with its line.\n" + lines_text(engine, remarks);
  if (!remarks.contains("gradient_clipping"))
    text += fmt::format("gradient_clipping: {}  # not given: DeepSpeed's default since 0.19.3; it was 0, off, before\n",
                        values.at("gradient_clipping"));
  text += comment("\"auto\" there, which other programs fill in; now:", autos);
  text += comment("Without effect here, and left out:", idle);
  return text;
}

}  // namespace lockstep::job
