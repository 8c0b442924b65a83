#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "job/batch.hpp"
#include "job/job.hpp"
#include "run/checkpoint.hpp"
#include "run/launch.hpp"

namespace lockstep::run {

/// Where a run begins: at step 0, or where a checkpoint left off. The same on every rank.
struct Beginning {
  std::string checkpoint;            ///< its folder; empty: step 0
  std::optional<RunState> state;     ///< the checkpoint's
  std::vector<std::string> remarks;  ///< what the user should hear about it; on rank 0

  [[nodiscard]] std::int64_t first_step() const { return state ? state->step.attempted : 0; }
};

/// Finds the checkpoint to go on from; for `never` moves an existing run aside. Every rank calls it, rank 0 looks.
/// `resume`: "auto", "never", or the path of a checkpoint.
[[nodiscard]] Beginning find_beginning(const std::string& folder, const std::string& resume,
                                       const CheckpointStore& store, comm::Communicator& comm);

/// A checkpoint's batch and micro-batch win over the job's: the same samples go into each step, however many ranks
/// share them out. ErrorKind::checkpoint where that cannot be, with the numbers of ranks that can.
[[nodiscard]] job::BatchSizes batch_for(const job::JobConfig& job, const Beginning& beginning, const RankContext& rank);

/// Lines of `now` that are not in `before`: where a job differs from the one that wrote a checkpoint.
[[nodiscard]] std::vector<std::string> differing_lines(const std::string& before, const std::string& now);

}  // namespace lockstep::run
