#pragma once

#include <string>
#include <vector>

#include "run/bench/benches.hpp"

namespace lockstep::run::bench {

struct BenchOptions {
  std::vector<std::string> what = {};  ///< of bench_names(), in order
  Sampling sampling = {};
  OptimizerShape optimizer = {};
  AllReduceShape all_reduce = {};
  GemmShape gemm = {};
  AttentionShape attention = {};
  StepShape step = {};
  const job::LoadedJob* job = nullptr;  ///< of the step; null: usual_step_job with `overrides`
  std::vector<std::string> overrides = {};
  std::string json_path = {};  ///< where all samples go; empty: nowhere
};

[[nodiscard]] const std::vector<std::string>& bench_names();  ///< optimizer, allreduce, update, gemm, attention, step

/// Runs the measurements in turn. Rank 0 prints a header and a table of each; with a json_path it writes the samples of
/// all of them there. `allreduce` and `update` are left out, and said to be, where they are not for
/// these ranks and others are asked for too.
/// ErrorKind::environment if the file cannot be written.
void run_benches(RankContext& rank, const BenchOptions& options);

}  // namespace lockstep::run::bench
