#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::run {

/// One start of a run: with what its steps were computed from there on.
struct RunStart {
  std::int64_t step = 0;     ///< steps that had been done before it
  std::string time = {};     ///< UTC, "2026-11-26T06:40:00Z"; empty: now
  std::string version = {};  ///< of the program; empty: this one
  std::string build = {};    ///< its build id; empty: this one
  std::string ranks = {};    ///< "2 ranks (mpi) x 1 thread on 1 host, cpu avx512"
  std::string batch = {};
  std::string model = {};
  std::string data = {};
  bool operator==(const RunStart&) const = default;
};

/// Appends a line to the run's starts.jsonl. ErrorKind::environment if that fails.
void append_start(const std::string& run_folder, RunStart start);

/// All of them, oldest first; none if there is no file. A line that cannot be read is left out.
[[nodiscard]] std::vector<RunStart> read_starts(const std::string& run_folder);

}  // namespace lockstep::run
