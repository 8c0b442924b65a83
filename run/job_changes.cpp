#include "run/job_changes.hpp"

#include <fmt/format.h>

#include <map>
#include <sstream>

#include "core/error.hpp"
#include "core/text.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

std::map<std::string, std::string> values_of(const job::JobConfig& config) {
  std::map<std::string, std::string> values;
  std::istringstream lines(job::flat_text(config));
  for (std::string line; std::getline(lines, line);)
    if (const std::size_t colon = line.find(": "); colon != std::string::npos)
      values[line.substr(0, colon)] = line.substr(colon + 2);
  return values;
}

std::string value_in(const std::map<std::string, std::string>& values, const std::string& key) {
  const auto found = values.find(key);
  return found == values.end() ? "absent" : found->second;
}

/// How a loss is scaled: "fp32", "fp16 with a dynamic loss scale".
std::string scaling_of(const job::JobConfig& config) {
  if (!config.fp16.enabled) return std::string(to_string(compute_dtype(config)));
  if (config.fp16.loss_scale == 0) return "fp16 with a dynamic loss scale";
  return fmt::format("fp16 with loss scale {}", config.fp16.loss_scale);
}

}  // namespace

std::optional<job::JobConfig> job_of_then(const std::string& text) {
  try {
    return job::load_job_text("job.yaml", text, "/").config;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<JobChange> changes_between(const job::JobConfig& then, const job::JobConfig& now) {
  const auto before = values_of(then), after = values_of(now);
  auto keys = before;
  keys.insert(after.begin(), after.end());
  std::vector<JobChange> changes;
  for (const auto& [key, ignored] : keys)
    if (value_in(before, key) != value_in(after, key))
      changes.push_back({.key = key, .before = value_in(before, key), .now = value_in(after, key)});
  return changes;
}

std::string to_text(const JobChange& change) {
  return printable(fmt::format("{}: {} -> {}", change.key, change.before, change.now));
}

std::optional<std::string> scaler_change(const job::JobConfig& then, const job::JobConfig& now) {
  const std::string before = scaling_of(then), after = scaling_of(now);
  if (before == after) return std::nullopt;
  return before + " -> " + after;
}

}  // namespace lockstep::run
