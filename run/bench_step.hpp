#pragma once

#include <cstdint>

#include "run/launch.hpp"

namespace lockstep::run {

struct BenchStepOptions {
  std::int64_t steps = 8;  ///< timed ones
  std::int64_t warmup = 2;
  int classes = 0;  ///< symbols; 0: what the job's data has
};

/// Times whole training steps of a job on random samples (no data file is read if `classes` is given) and prints
/// tokens/s: median, and the range. Rank 0 prints.
void bench_step(const job::LoadedJob& loaded, const BenchStepOptions& options, RankContext& rank);

}  // namespace lockstep::run
