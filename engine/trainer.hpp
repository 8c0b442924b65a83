#pragma once

#include <optional>
#include <string>

#include "engine/job.hpp"
#include "engine/launch.hpp"

namespace lockstep::engine {

struct TrainResult {
  std::int64_t steps = 0;          ///< attempted
  std::int64_t updates = 0;        ///< applied
  std::optional<double> val_loss;  ///< the last one
  bool was_complete = false;       ///< the run had finished before; nothing was done
};

/// Runs a job from its beginning or its newest checkpoint to run.steps. Every rank calls it. Rank 0 writes the run's
/// folder and prints.
///
/// SIGTERM and SIGINT stop all ranks after the same step: everything is saved and ErrorKind::preempted is thrown.
/// `resume`: "auto", "never", or the path of a checkpoint.
TrainResult train(const JobConfig& job, const std::string& resume, RankContext& rank);

/// Mean validation loss in nats per target over all of the validation data. Blocks of `block` samples are shared
/// out to the ranks and summed in block order, so the result has the same bits on any number of ranks.
[[nodiscard]] double evaluate_all(Engine& engine, const data::Dataset& dataset);

/// The run's folder: <output_dir>/<name>.
[[nodiscard]] std::string run_folder(const JobConfig& job);

}  // namespace lockstep::engine
