#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "engine/engine.hpp"
#include "engine/evaluate.hpp"
#include "job/batch.hpp"
#include "run/background_save.hpp"
#include "run/checkpoint_store.hpp"
#include "run/launch.hpp"
#include "run/run_folder.hpp"

namespace lockstep::run {

/// The job's schedule in the hands of a program. Whose it is to step was said when the training was made:
/// managed (the default), the engine steps it once for each applied update; user-managed, the program calls step().
class Scheduler {
 public:
  /// What the next update will use, one number a parameter group.
  [[nodiscard]] std::vector<double> lr() const { return engine_.lr(); }
  /// User-managed only: goes on by one index, which the next update uses. ErrorKind::config for a managed schedule.
  void step();
  /// Managed, of a schedule that follows a metric (ReduceLROnPlateau): the metric after the steps so far, the same on
  /// every rank; the next step is the first to use what follows from it. Collective.
  void observe(double metric) { engine_.observe(metric); }
  /// User-managed: how often step() was called, over all runs. Managed: updates applied so far.
  [[nodiscard]] std::int64_t index() const;
  [[nodiscard]] bool managed() const { return managed_; }
  [[nodiscard]] const sched::Schedule& schedule() const { return *schedule_; }

 private:
  friend class Training;
  Scheduler(engine::Engine& engine, std::shared_ptr<const sched::Schedule> schedule, bool managed);
  void set_index(std::int64_t index);

  engine::Engine& engine_;
  std::shared_ptr<const sched::Schedule> schedule_;
  bool managed_;
  std::int64_t index_ = 0;
};

struct TrainingOptions {
  std::int64_t length = 1;              ///< positions a sample, for models of sequences
  bool user_managed_scheduler = false;  ///< the program steps the schedule, or sets lr itself
};

/// What was loaded.
struct LoadedCheckpoint {
  std::string path;
  std::int64_t step = 0;     ///< attempted steps that it holds
  std::string client_state;  ///< as given to save()
};

/// One rank's part in the training of a program's own model, by the engine keys of a job file: what DeepSpeed calls its
/// engine.
///
///   while (training.step_count() < training.steps()) {
///     for (const std::int64_t position : training.sample_positions()) {
///       data.train_batch(position, training.micro_batch(), batch);
///       training.forward(batch);
///       training.backward();
///     }
///     training.step();
///   }
///
/// Every rank calls the same methods in the same order. Methods marked collective meet the other ranks; the others may
/// be called by one rank alone. Errors are thrown as lockstep::Error; launch() turns one into a message and the exit
/// code of the whole job.
class Training {
 public:
  /// `model` must outlive it. The job's model.type must be custom. Collective.
  Training(nn::Model& model, const job::LoadedJob& job, RankContext& rank, TrainingOptions options = {});
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;
  /// A save that begin_save() began and nobody waited for is given up, with a warning.
  ~Training();

  /// Forward pass of one micro-batch of micro_batch() samples.
  void forward(const data::HostBatch& batch) { engine_->forward(batch); }
  void backward() { engine_->backward(); }
  /// After the passes over sample_positions(): reduce, decide, update. Collective.
  void step();
  /// One whole step on a data set. Collective.
  void train_step(const data::Dataset& dataset);

  /// The global position of the first sample of each micro-batch that this rank runs in the step to come. Over the
  /// ranks they tile the step's train_batch_size() samples, so that what a step trains on does not depend on the ranks.
  [[nodiscard]] std::vector<std::int64_t> sample_positions() const;
  [[nodiscard]] std::int64_t train_batch_size() const { return batch_.train; }  ///< samples a step, of all ranks
  [[nodiscard]] std::int64_t micro_batch() const { return batch_.micro; }       ///< samples
  [[nodiscard]] std::int64_t step_count() const { return step_count_; }         ///< steps issued, over all runs
  [[nodiscard]] std::int64_t steps() const { return job_.config.run.steps; }    ///< run.steps of the job
  [[nodiscard]] int rank() const { return comm_.rank(); }
  [[nodiscard]] int world_size() const { return comm_.size(); }

  [[nodiscard]] Scheduler& scheduler() { return scheduler_; }
  /// What the next update will use, one number a parameter group.
  [[nodiscard]] std::vector<double> lr() const { return engine_->lr(); }
  /// User-managed only, one number a parameter group, the same on every rank; for the updates that follow.
  void set_lr(const std::vector<double>& lr) { engine_->set_lr(lr); }

  /// Steps that have finished since the last call, with loss, gradient norm and the lr that was applied; of those that
  /// nobody asked for the latest few thousand.
  [[nodiscard]] std::vector<engine::FinishedStep> results();
  /// Waits for every step in flight. Like step(), throws what ended the run (ErrorKind::diverged, desync).
  void drain();
  /// Mean loss over the validation samples of `dataset`, and of a classifier the part of them that it gets right;
  /// nothing if it has none. Collective.
  [[nodiscard]] std::optional<engine::Evaluation> evaluate(const data::Dataset& dataset);

  /// Writes <run folder>/checkpoints/step-N, of which run.checkpoint.keep_last remain, and returns its path.
  /// `client_state` is any text of the program's own, rank 0's counts. When it returns the checkpoint is whole and on
  /// the disk; a disk that is full or fails is thrown as files::DiskTrouble, which a program may survive. Collective.
  std::string save(const std::string& client_state = "");
  /// The same beside training: returns when every rank has copied what it writes, as much host memory as the rank saves
  /// (made at the first call, kept). step() goes on with it; the checkpoint gets its name some steps later, when every
  /// rank's part is on the disk, and holds this moment to the bit. One at a time: this, save() and load() first wait
  /// for the one under way. A disk that is full or fails costs that save alone, with a warning by rank 0, and
  /// finish_save() throws it; other errors come from the call that meets them. With run.checkpoint.async: false nothing
  /// is copied, and it returns when the checkpoint is there. Collective.
  void begin_save(const std::string& client_state = "");
  /// Waits for what begin_save() has begun last and returns its path, once; nothing if there was none. To be called
  /// before the training goes: what is still under way then is given up. Throws as save() does. Collective.
  std::optional<std::string> finish_save();
  /// Whether a save is under way. The same on every rank.
  [[nodiscard]] bool saving() const { return background_ && background_->under_way(); }
  /// Goes on from a checkpoint: "auto" the newest whole one of the run's folder, "never" none, else the folder of a
  /// checkpoint or of a run. Parameters, moments, loss scaler, counters and the schedule's index are those that were
  /// saved, on any number of ranks. Nothing if "auto" finds none. Before the first step. Collective.
  std::optional<LoadedCheckpoint> load(const std::string& resume = "auto");

  [[nodiscard]] engine::Engine& engine() { return *engine_; }
  [[nodiscard]] comm::Communicator& comm() { return comm_; }
  [[nodiscard]] const job::JobConfig& job() const { return job_.config; }
  [[nodiscard]] const std::string& folder() const { return folder_; }  ///< <output_dir>/<name>

 private:
  void collect();
  void together(std::string_view what, const std::function<void()>& work);
  void open_store(const std::string& run_id);
  void take_folder();
  RunState state_to_save(const std::string& client_state);
  void go_on_saving();
  void end_save(const Saved& saved);
  void await_save();
  [[nodiscard]] bool is_root() const { return comm_.rank() == 0; }

  const job::LoadedJob job_;
  RankContext& rank_;
  comm::Communicator& comm_;
  std::string folder_;
  job::BatchSizes batch_;
  engine::EngineOptions options_;
  std::unique_ptr<engine::Engine> engine_;
  Scheduler scheduler_;
  std::int64_t step_count_ = 0;
  std::vector<engine::FinishedStep> finished_;  ///< that nobody has asked for
  data::HostBatch host_batch_;
  // Once it saves or loads:
  std::optional<CheckpointStore> store_;
  std::optional<RunLock> lock_;  ///< on rank 0
  std::optional<BackgroundSave> background_;
  std::int64_t part_over_after_ = 0;  ///< the step after which all ranks go on with it; 0: not known yet
  std::optional<Saved> begun_;        ///< how the last one that was begun has ended, until somebody asks
};

/// Runs `body` as this process's part of a job and returns the exit code for main(). Whatever `body` throws ends all
/// ranks alike and is told once, by rank 0 where all of them met it. Inside, initialize() makes the training. Once per
/// process.
[[nodiscard]] int launch(const std::function<void()>& body);

/// Reads the job file, finds the other ranks (mpirun or srun; without one, this process is all), and makes the training
/// of `model`: what deepspeed.initialize does. `overrides` as --set. Inside of launch() only, once. Collective.
///
/// Errors: ErrorKind::config with file, line and column; ErrorKind::environment for a device or launcher that is not
/// there; ErrorKind::desync if the ranks read different jobs.
[[nodiscard]] Training initialize(nn::Model& model, const std::string& job_file, TrainingOptions options = {},
                                  const std::vector<std::string>& overrides = {});

}  // namespace lockstep::run
