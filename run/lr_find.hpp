#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/engine.hpp"
#include "run/launch.hpp"
#include "run/lr_find_rules.hpp"

namespace lockstep::run {

struct LrFindOptions {
  double from = 1e-7;        ///< the first rate, of parameter group 0; other groups keep their ratio to it
  double to = 10;            ///< the last one
  std::int64_t steps = 100;  ///< updates, at least 10
  double divergence = 4;     ///< the sweep ends when the smoothed loss is this many times its smallest value
  std::string resume = "";   ///< a checkpoint's folder, or a run's: from its parameters; empty: from the job's start
};

/// How a sweep went.
struct LrFound {
  LrSweep sweep;
  std::string ended = {};  ///< why before the last rate; empty: it was reached
};

/// Collective. Trains `options.steps` steps while the rate grows, then puts everything back, to the bit: parameters,
/// moments, loss scaler, counters, schedule and what it remembers of a metric. `train_step(i)` runs all passes and the
/// step of the engine on the i-th batch, counted from 0; what it draws batches from must not remember how far it is.
/// ErrorKind::internal in the middle of a step.
[[nodiscard]] LrFound sweep_lr(engine::Engine& engine, const std::function<void(std::int64_t)>& train_step,
                               const LrFindOptions& options);

/// The same for a job, in an engine of its own: with the job's model, optimizer and batch, on its data in the run's
/// order. Reads the checkpoint it is to begin with and writes nothing. Rank 0 prints the run's size first.
[[nodiscard]] LrFound find_lr(const job::LoadedJob& job, const LrFindOptions& options, RankContext& rank);

}  // namespace lockstep::run
