#include "run/resume.hpp"

#include <algorithm>
#include <filesystem>

#include "core/error.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "optim/optimizer.hpp"
#include "run/job_changes.hpp"
#include "run/run_folder.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

/// The path without links and dots, for comparing.
fs::path plain(const std::string& path) {
  std::error_code error;
  const fs::path result = fs::weakly_canonical(path, error);
  return error ? fs::path(path) : result;
}

std::string metrics_path(const std::string& folder) { return folder + "/metrics.jsonl"; }

/// Of a run's folder.
void look_for_newest(const std::string& folder, Beginning& beginning) {
  const Newest newest = newest_checkpoint(folder + "/checkpoints");
  for (const std::string& damage : newest.passed_over)
    beginning.remarks.push_back(damage + "; going on from the checkpoint before it");
  if (!newest.path) return;
  beginning.checkpoint = *newest.path;
  beginning.manifest = newest.manifest;
}

/// A checkpoint, or a run's newest one, that was named.
void look_at(const std::string& path, Beginning& beginning) {
  if (files::is_folder(path + "/checkpoints") && !files::path_exists(path + "/manifest.json")) {
    look_for_newest(path, beginning);
    if (!beginning.manifest)
      fail(ErrorKind::checkpoint, "{}: this run has no checkpoint yet; start it with --resume auto", printable(path));
    return;
  }
  beginning.checkpoint = path;
  try {
    beginning.manifest = read_manifest(path);
    verify_files(path, *beginning.manifest);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::checkpoint) throw;
    fail(ErrorKind::checkpoint,
         "{}\n  Put back a good copy, name another one with --resume FOLDER, or start anew with --resume never, which "
         "keeps this run aside",
         error.what());
  }
}

/// The run's own later steps: another way on from here.
void leave_later_steps(const std::string& folder, const CheckpointStore& store, Beginning& beginning) {
  const std::optional<MovedAside> moved = store.move_aside_above(beginning.keep_steps);
  if (!moved && beginning.metrics.behind > 0)
    beginning.remarks.push_back(fmt::format("{}: {} behind step {}, of which there is no checkpoint; taken again",
                                            printable(metrics_path(folder)), counted(beginning.metrics.behind, "step"),
                                            beginning.keep_steps));
  if (!moved) return;
  std::error_code error;
  fs::copy_file(metrics_path(folder), moved->folder + "/metrics.jsonl", error);
  beginning.remarks.push_back(fmt::format("going on from step {}; what was saved after it ({}) is now in {}{}",
                                          beginning.keep_steps, moved->steps, printable(moved->folder),
                                          error ? "" : ", with the metrics of then"));
}

/// For a job that cannot go on: what of it is new, and the two ways out.
std::string what_changed(const Beginning& beginning, const job::JobConfig& job) {
  if (!beginning.job_of_then) return {};
  std::string text;
  for (const JobChange& change : changes_between(*beginning.job_of_then, job))
    if (change.key.starts_with("model.") || change.key.starts_with("data.") || change.key.starts_with("optimizer.") ||
        change.key.starts_with("parameter_groups"))
      text += "\n    " + to_text(change);
  if (text.empty()) return {};
  return "\n  Since the checkpoint was written these keys have changed (then -> now):" + text +
         "\n  With the old values the run goes on as if nothing had happened; --resume never or another run.name "
         "starts "
         "a new one and keeps this one";
}

}  // namespace

Beginning find_beginning(const std::string& folder, const std::string& resume) {
  Beginning beginning;
  if (resume == "auto")
    look_for_newest(folder, beginning);
  else if (resume != "never")
    look_at(resume, beginning);
  // One that is not of this run's own history starts a new one.
  const bool own = resume == "auto" || plain(beginning.checkpoint).parent_path() == plain(folder) / "checkpoints";
  if (resume == "never" || !own) {
    beginning.move_run_aside = true;
    return beginning;
  }
  beginning.keep_steps = beginning.first_step();
  beginning.metrics = scan_metrics(metrics_path(folder), beginning.keep_steps);
  return beginning;
}

void share_beginning(Beginning& beginning, comm::Communicator& comm) {
  std::string manifest = beginning.manifest ? manifest_text(*beginning.manifest) : "";
  comm.broadcast_text(beginning.checkpoint, 0);
  comm.broadcast_text(manifest, 0);
  if (manifest.empty()) return;
  beginning.manifest = parse_manifest(manifest, beginning.checkpoint);
  beginning.job_of_then = job_of_then(beginning.manifest->state.job);
}

void load_beginning(const Beginning& beginning, engine::Engine& engine) {
  try {
    load_checkpoint(beginning.checkpoint, *beginning.manifest, engine);
  } catch (const Damaged& error) {
    if (engine.comm().rank() == 0) throw;
    fail(ErrorKind::checkpoint,
         "{}\n  Rank 0 has read the checkpoint and it is whole: what this rank sees under the same name is something "
         "else, an older state perhaps. All hosts need the run's folder on a file system that they share",
         error.what());
  }
}

void require_same_run(const Beginning& beginning, const job::JobConfig& job, const data::Dataset& dataset,
                      const nn::Model& model, const engine::EngineOptions& options) {
  if (!beginning.manifest) return;
  const std::string& path = beginning.checkpoint;
  // The seed first: it decides the data's order, and with generated data the data.
  const auto seed = static_cast<std::uint64_t>(job.run.seed);
  if (beginning.manifest->state.seed != seed)
    fail(ErrorKind::checkpoint,
         "{} was trained with run.seed {}, this job has run.seed {}: the order of the data would change in the middle "
         "of the run. Bring back the seed, or start a new run with --resume never or another run.name",
         printable(path), beginning.manifest->state.seed, seed);
  std::vector<std::string> buffers = {"master"};
  for (const std::string& moment : optim::make_optimizer(options.optimizer)->moments()) buffers.push_back(moment);
  try {
    require_same_data(path, beginning.manifest->state.data, dataset);
    require_same_tensors(path, *beginning.manifest, model, buffers);
  } catch (const Error& error) {
    throw Error(error.kind(), error.what() + what_changed(beginning, job));
  }
}

std::optional<std::string> new_scaler(const Beginning& beginning, const job::JobConfig& job) {
  if (!beginning.manifest || !beginning.job_of_then) return std::nullopt;
  return scaler_change(*beginning.job_of_then, job);
}

std::optional<sched::MetricState> metric_to_go_on(Beginning& beginning, const std::optional<sched::MetricState>& now) {
  if (!beginning.manifest || !now) return now;
  const std::optional<sched::MetricState>& then = beginning.manifest->state.metric;
  if (!then) return now;
  std::vector<double> began_with = now->lr;
  if (beginning.job_of_then) {
    const auto fresh = job::make_schedule(*beginning.job_of_then)->metric_state();
    if (fresh) began_with = fresh->lr;
  }
  if (began_with == now->lr && then->lr.size() == now->lr.size()) return then;
  beginning.remarks.push_back(
      "the optimizer's learning rate has changed: the schedule begins anew from it, and with what val_loss it has "
      "seen");
  return now;
}

void open_run_folder(const std::string& folder, const CheckpointStore& store, Beginning& beginning) {
  if (!beginning.move_run_aside)
    leave_later_steps(folder, store, beginning);
  else if (!files::names_in(folder).empty())
    beginning.remarks.push_back("the run that was here is now " + printable(move_folder_aside(folder)));
  files::make_folders(folder + "/checkpoints");
  if (beginning.metrics.bad_lines > 0)
    beginning.remarks.push_back(fmt::format("{}: lines that cannot be read stay as they are: {}, the first is line {}",
                                            printable(metrics_path(folder)), beginning.metrics.bad_lines,
                                            beginning.metrics.first_bad));
}

job::BatchSizes batch_for(const job::JobConfig& job, Beginning& beginning, const RankContext& rank) {
  const std::int64_t world = rank.comm.size();
  if (!beginning.manifest) return batch_sizes(job, world, rank.world_source);
  const std::int64_t train = beginning.manifest->state.train_batch, micro = beginning.manifest->state.micro_batch;
  const bool invariant = job.run.determinism == "invariant";
  if (invariant ? world * micro > train : train % (micro * world) != 0) {
    std::string works;
    for (std::int64_t n = 1; n * micro <= train; ++n)
      if (invariant || train % (micro * n) == 0) works += (works.empty() ? "" : ", ") + std::to_string(n);
    fail(ErrorKind::checkpoint,
         "the checkpoint's train_batch_size {} in micro-batches of {} cannot be shared by {} ranks ({}); numbers of "
         "ranks that work: {}",
         train, micro, world, rank.world_source, works);
  }
  if (job.train_batch_size.value_or(train) != train ||
      (!job.micro_batch_is_auto() && job.train_micro_batch_size_per_gpu.value_or(micro) != micro))
    beginning.remarks.push_back(fmt::format(
        "the checkpoint's train_batch_size {} and micro-batch {} stay; this job's numbers would need a new run", train,
        micro));
  job::BatchSizes sizes = invariant ? job::resolve_leaves(train, micro, {}, world, rank.world_source)
                                    : job::resolve_batch(train, micro, {}, world, rank.world_source);
  sizes.text = invariant ? sizes.text + " (from the checkpoint)"
                         : fmt::format("{} ({}) x {} micro (from the checkpoint) x {} accumulation (derived) = {}",
                                       counted(world, "rank"), rank.world_source, micro, sizes.accumulation, train);
  return sizes;
}

}  // namespace lockstep::run
