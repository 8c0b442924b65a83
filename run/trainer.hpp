#pragma once

#include <optional>
#include <string>

#include "job/job.hpp"
#include "run/launch.hpp"

namespace lockstep::run {

struct TrainResult {
  std::int64_t steps = 0;          ///< attempted
  std::int64_t updates = 0;        ///< applied
  std::optional<double> val_loss;  ///< the last one
  std::optional<double> val_accuracy = {};
  bool was_complete = false;  ///< the run had finished before; nothing was done
};

/// Runs a job from its beginning or its newest checkpoint to run.steps. Every rank calls it. Rank 0 writes the run's
/// folder and prints.
///
/// SIGTERM and SIGINT stop all ranks after the same step: everything is saved and ErrorKind::preempted is thrown.
/// `resume`: "auto", "never", or the path of a checkpoint.
TrainResult train(const job::LoadedJob& job, const std::string& resume, RankContext& rank);

}  // namespace lockstep::run
