#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "engine/engine.hpp"
#include "job/batch.hpp"
#include "job/job.hpp"
#include "run/checkpoint_store.hpp"
#include "run/launch.hpp"
#include "run/metrics.hpp"

namespace lockstep::run {

/// Where a run begins: at step 0, or where a checkpoint left off.
struct Beginning {
  std::string checkpoint;                     ///< its folder; empty: step 0
  std::optional<Manifest> manifest;           ///< the checkpoint's
  std::optional<job::JobConfig> job_of_then;  ///< that wrote it, if this version can read it
  // On rank 0 only:
  bool move_run_aside = false;  ///< the folder holds another run, which stays under another name
  std::int64_t keep_steps = 0;  ///< checkpoints and metrics up to this step belong to the run that goes on
  MetricsScan metrics;
  std::vector<std::string> remarks;  ///< what the user should hear about it

  [[nodiscard]] std::int64_t first_step() const { return manifest ? manifest->state.step.attempted : 0; }
};

/// Rank 0: finds the checkpoint to go on from and verifies every byte of it. Changes nothing.
///
/// `resume`: "auto": the newest whole checkpoint of the run's folder; "never": none; else the folder of a checkpoint,
/// of this run or another one, or a run's folder, which means its newest whole checkpoint. ErrorKind::checkpoint if
/// there should be one and none can be used.
[[nodiscard]] Beginning find_beginning(const std::string& folder, const std::string& resume);

/// Gives rank 0's answer to every rank.
void share_beginning(Beginning& beginning, comm::Communicator& comm);

/// Fills the engine from the checkpoint; every rank calls it, each reads for itself (load_checkpoint). What rank 0
/// found whole and another rank does not is told as what it is: another folder.
void load_beginning(const Beginning& beginning, engine::Engine& engine);

/// Refuses to go on from a checkpoint of other data, another seed, model or optimizer. ErrorKind::checkpoint: it cannot
/// be applied to this job. The text has each key that changed, with both values.
void require_same_run(const Beginning& beginning, const job::JobConfig& job, const data::Dataset& dataset,
                      const nn::Model& model, const engine::EngineOptions& options);

/// Where the checkpoint's loss scale means nothing to the job, as scaler_change says it; the job's own scaler begins
/// then.
[[nodiscard]] std::optional<std::string> new_scaler(const Beginning& beginning, const job::JobConfig& job);

/// What the job's schedule goes on remembering of val_loss: the checkpoint's, unless the optimizer's learning rates are
/// others than then (a remark says so) or either of the two schedules reads no metric. `now`: the state of a fresh run.
[[nodiscard]] std::optional<sched::MetricState> metric_to_go_on(Beginning& beginning,
                                                                const std::optional<sched::MetricState>& now);

/// Rank 0: makes the run's folder ready for the steps that follow `beginning`. What does not belong before them is
/// moved aside, never removed, and may take the checkpoint with it: load first.
void open_run_folder(const std::string& folder, const CheckpointStore& store, Beginning& beginning);

/// A checkpoint's batch and micro-batch win over the job's: the same samples go into each step, however many ranks
/// share them out. ErrorKind::checkpoint where that cannot be, with the numbers of ranks that can. A job that says auto
/// must have been settled unless there is a checkpoint.
[[nodiscard]] job::BatchSizes batch_for(const job::JobConfig& job, Beginning& beginning, const RankContext& rank);

}  // namespace lockstep::run
