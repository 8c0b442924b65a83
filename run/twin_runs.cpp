#include "run/twin_runs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "core/json.hpp"
#include "core/text.hpp"
#include "run/attempt.hpp"
#include "run/checkpoint_tools.hpp"

namespace lockstep::run {
namespace {

using nlohmann::json;

/// Values of a line that repeat from run to run.
json without_clock(json line) {
  for (auto at = line.begin(); at != line.end();) {
    const std::string& key = at.key();
    const bool clock = key.ends_with("_per_s") || key.ends_with("_ms") || key == "memory_bytes";
    at = clock ? line.erase(at) : std::next(at);
  }
  return line;
}

void compare_metrics(const std::string& undisturbed, const std::string& disturbed, Twins& twins) {
  const std::vector<json> expected = metrics_of(undisturbed), found = metrics_of(disturbed);
  if (expected.size() != found.size())
    twins.failures.push_back(fmt::format("metrics.jsonl has {}, undisturbed {}",
                                         counted(static_cast<std::int64_t>(found.size()), "line"), expected.size()));
  for (std::size_t i = 0; i < std::min(expected.size(), found.size()); ++i)
    if (const json a = without_clock(expected[i]), b = without_clock(found[i]); a != b)
      return twins.failures.push_back(fmt::format("metrics.jsonl differs in line {}: {}, undisturbed {}", i + 1,
                                                  printable(b.dump()), printable(a.dump())));
  twins.equal_lines = static_cast<std::int64_t>(expected.size());
}

void compare_names(const std::string& undisturbed, const std::string& disturbed, Twins& twins) {
  for (const char* folder : {"", "/checkpoints"}) {
    const std::vector<std::string> expected = names_in(undisturbed + folder), found = names_in(disturbed + folder);
    if (expected != found)
      twins.failures.push_back(fmt::format("{}{} holds {}; undisturbed {}", printable(disturbed), folder,
                                           printable(fmt::format("{}", fmt::join(found, " "))),
                                           printable(fmt::format("{}", fmt::join(expected, " ")))));
  }
}

}  // namespace

std::vector<json> metrics_of(const std::string& run) {
  std::ifstream in(run + "/metrics.jsonl", std::ios::binary);
  std::vector<json> lines;
  for (std::string text; std::getline(in, text);) lines.push_back(parse_json(text));
  return lines;
}

Twins compare_twins(const std::string& undisturbed, const std::string& disturbed, std::int64_t steps) {
  Twins twins;
  compare_metrics(undisturbed, disturbed, twins);
  const std::string last = fmt::format("/checkpoints/step-{}", steps);
  if (const CheckpointReport report = diff_checkpoints(undisturbed + last, disturbed + last); !report.good)
    twins.failures.push_back("the parameters or moments differ:\n" + report.text);
  compare_names(undisturbed, disturbed, twins);
  return twins;
}

}  // namespace lockstep::run
