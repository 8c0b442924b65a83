#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "run/bench/bench.hpp"
#include "run/scaling.hpp"

namespace lockstep {

/// `lockstep bench WHAT`: its options, and what they ask for.
class BenchCommand {
 public:
  /// Adds `bench` with a command for each measurement and one for all. `done` gets the exit code when one has run.
  BenchCommand(CLI::App& app, std::function<void(int)> done);
  BenchCommand(const BenchCommand&) = delete;
  BenchCommand& operator=(const BenchCommand&) = delete;

 private:
  CLI::App* add(CLI::App& bench, const std::string& name, const std::string& doc, const std::string& example,
                std::vector<std::string> what);
  void add_optimizer_sizes(CLI::App& command);
  void add_all_reduce_sizes(CLI::App& command);
  void add_gemm_sizes(CLI::App& command);
  void add_attention_sizes(CLI::App& command);
  void add_step_sizes(CLI::App& command);
  void add_scaling(CLI::App& bench);
  [[nodiscard]] int run(const std::vector<std::string>& what);
  /// The job file with the options that are keys of it, or the usual job.
  [[nodiscard]] job::LoadedJob load() const;
  [[nodiscard]] std::vector<std::string> overrides() const;

  run::bench::BenchOptions options_;
  std::string job_;  ///< empty: the usual one
  std::vector<std::string> set_;
  std::string device_;
  std::int64_t threads_ = 0, ranks_ = 0, peak_ = 0;
  run::ScalingOptions scaling_;
  std::vector<int> at_;
  bool simulate_ = false;
  std::function<void(int)> done_;
};

}  // namespace lockstep
