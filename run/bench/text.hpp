#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "run/bench/benches.hpp"

namespace lockstep::run::bench {

/// What figures are worth nothing without.
struct Machine {
  std::string version;  ///< "0.1.0"
  std::string commit;   ///< "3f2a91c0d6e1", "3f2a91c0d6e1 with changes", "unknown"
  std::string build;    ///< the build id
  std::string device;   ///< "cpu", "cuda:0 (NVIDIA H200)"
  std::string cpu;      ///< as the system calls it
  std::string isa;
  std::string host;
  std::string comm;
  int ranks = 1;
  int threads = 1;
};
[[nodiscard]] Machine machine_of(const RankContext& rank);

[[nodiscard]] std::string header_text(const Machine& machine);
/// A line a task: median, spread, rates, share of the ceiling, samples that were rejected.
[[nodiscard]] std::string report_text(const Report& report);

/// Everything, samples included. Rates are those of the medians: gb_s = bytes / seconds.median / 1e9.
[[nodiscard]] nlohmann::ordered_json json_of(const Machine& machine, const std::vector<Report>& reports);

}  // namespace lockstep::run::bench
