#include "run/resume.hpp"

#include <algorithm>
#include <filesystem>

#include "core/text.hpp"
#include "optim/optimizer.hpp"
#include "run/durable_folder.hpp"
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

void look_for_newest(const std::string& folder, Beginning& beginning) {
  const Newest newest = newest_checkpoint(folder + "/checkpoints");
  for (const std::string& damage : newest.passed_over)
    beginning.remarks.push_back(damage + "; going on from the checkpoint before it");
  if (newest.path) {
    beginning.checkpoint = *newest.path;
    beginning.manifest = newest.manifest;
  }
  beginning.keep_steps = beginning.first_step();
  beginning.metrics = scan_metrics(metrics_path(folder), beginning.keep_steps);
}

/// A checkpoint that was named. One that is not of this run's own history starts a new one.
void look_at(const std::string& path, const std::string& folder, Beginning& beginning) {
  beginning.checkpoint = path;
  beginning.manifest = read_manifest(path);
  verify_tensors(path, *beginning.manifest);
  if (plain(path).parent_path() != plain(folder) / "checkpoints") {
    beginning.move_run_aside = true;
    return;
  }
  beginning.keep_steps = beginning.first_step();
  beginning.metrics = scan_metrics(metrics_path(folder), beginning.keep_steps);
}

/// The run's own later steps: another way on from here.
void leave_later_steps(const std::string& folder, const CheckpointStore& store, Beginning& beginning) {
  const std::optional<MovedAside> moved = store.move_aside_above(beginning.keep_steps);
  if (!moved) return;
  std::error_code error;
  fs::copy_file(metrics_path(folder), moved->folder + "/metrics.jsonl", error);
  beginning.remarks.push_back(fmt::format("going on from step {}; what was saved after it ({}) is now in {}{}",
                                          beginning.keep_steps, moved->steps, printable(moved->folder),
                                          error ? "" : ", with the metrics of then"));
}

}  // namespace

Beginning find_beginning(const std::string& folder, const std::string& resume) {
  Beginning beginning;
  if (resume == "auto")
    look_for_newest(folder, beginning);
  else if (resume == "never")
    beginning.move_run_aside = true;
  else
    look_at(resume, folder, beginning);
  return beginning;
}

void share_beginning(Beginning& beginning, comm::Communicator& comm) {
  std::string manifest = beginning.manifest ? manifest_text(*beginning.manifest) : "";
  comm.broadcast_text(beginning.checkpoint, 0);
  comm.broadcast_text(manifest, 0);
  if (!manifest.empty()) beginning.manifest = parse_manifest(manifest, beginning.checkpoint);
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
  require_same_data(path, beginning.manifest->state.data, dataset);
  std::vector<std::string> buffers = {"master"};
  for (const std::string& moment : optim::make_optimizer(options.optimizer)->moments()) buffers.push_back(moment);
  require_same_tensors(path, *beginning.manifest, model, buffers);
}

void open_run_folder(const std::string& folder, const CheckpointStore& store, Beginning& beginning) {
  if (!beginning.move_run_aside)
    leave_later_steps(folder, store, beginning);
  else if (!names_in(folder).empty())
    beginning.remarks.push_back("the run that was here is now " + printable(move_folder_aside(folder)));
  make_folders(folder + "/checkpoints");
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
  if (job.train_batch_size.value_or(train) != train || job.train_micro_batch_size_per_gpu.value_or(micro) != micro)
    beginning.remarks.push_back(fmt::format(
        "the checkpoint's train_batch_size {} and micro-batch {} stay; this job's numbers would need a new run", train,
        micro));
  if (invariant) return job::resolve_leaves(train, micro, {}, world, rank.world_source);
  return job::resolve_batch(train, micro, train / (micro * world), world, rank.world_source);
}

std::vector<std::string> differing_lines(const std::string& before, const std::string& now) {
  const auto lines = [](const std::string& text) {
    std::vector<std::string> result;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      result.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    return result;
  };
  const std::vector<std::string> old_lines = lines(before);
  std::vector<std::string> result;
  for (const std::string& line : lines(now))
    if (std::find(old_lines.begin(), old_lines.end(), line) == old_lines.end()) result.push_back(line);
  return result;
}

}  // namespace lockstep::run
