#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lockstep::run {

/// The lines of a run's metrics.
[[nodiscard]] std::vector<nlohmann::json> metrics_of(const std::string& run);

/// What two runs of one job, of which one was disturbed, have in common.
struct Twins {
  std::int64_t equal_lines = 0;       ///< of the metrics; 0 if one differs
  std::vector<std::string> failures;  ///< sentences; none: they are equal
};

/// Compares two runs that have come to the same last step: every line of the metrics (but for the clock), every
/// parameter and moment of the last checkpoint bit for bit, and the names in both folders.
[[nodiscard]] Twins compare_twins(const std::string& undisturbed, const std::string& disturbed, std::int64_t steps);

}  // namespace lockstep::run
