#pragma once

#include "engine/engine.hpp"
#include "job/batch.hpp"
#include "job/job.hpp"
#include "run/manifest.hpp"

namespace lockstep::run {

/// What a checkpoint says of this moment beside the tensors, as far as it is the engine's and the job's; the data, the
/// proof of the next loss and what a program adds are for the caller to fill in. `step`: the engine's, after the steps
/// so far.
[[nodiscard]] RunState run_state_of(engine::Engine& engine, const StepState& step, const job::JobConfig& job,
                                    const job::BatchSizes& batch, int threads);

}  // namespace lockstep::run
