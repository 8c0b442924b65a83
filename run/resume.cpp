#include "run/resume.hpp"

#include <algorithm>
#include <filesystem>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;

/// Rank 0's part.
void look(const std::string& folder, const std::string& resume, const CheckpointStore& store, Beginning& beginning) {
  try {
    if (resume == "auto") {
      beginning.checkpoint = store.newest().value_or("");
    } else if (resume == "never") {
      if (fs::exists(folder) && !fs::is_empty(folder)) {
        std::string aside;
        for (int n = 1; aside.empty() || fs::exists(aside); ++n) aside = fmt::format("{}.old-{}", folder, n);
        fs::rename(folder, aside);
        beginning.remarks.push_back(fmt::format("resume: never; the run that was here is now {}", aside));
      }
    } else {
      beginning.checkpoint = resume;
    }
    fs::create_directories(fs::path(folder) / "checkpoints");
  } catch (const fs::filesystem_error& error) {
    fail(ErrorKind::environment, "the run's folder {} cannot be made: {}; run.output_dir says where it lies", folder,
         error.code().message());
  }
}

}  // namespace

Beginning find_beginning(const std::string& folder, const std::string& resume, const CheckpointStore& store,
                         comm::Communicator& comm) {
  Beginning beginning;
  if (comm.rank() == 0) look(folder, resume, store, beginning);
  comm.broadcast_text(beginning.checkpoint, 0);
  if (!beginning.checkpoint.empty()) beginning.state = store.read_state(beginning.checkpoint);
  return beginning;
}

job::BatchSizes batch_for(const job::JobConfig& job, const Beginning& beginning, const RankContext& rank) {
  const std::int64_t world = rank.comm.size();
  if (!beginning.state)
    return job::resolve_batch(job.train_batch_size, job.train_micro_batch_size_per_gpu, job.gradient_accumulation_steps,
                              world, rank.world_source);
  const std::int64_t train = beginning.state->train_batch, micro = beginning.state->micro_batch;
  if (train % (micro * world) != 0) {
    std::string works;
    for (std::int64_t n = 1; n * micro <= train; ++n)
      if (train % (micro * n) == 0) works += (works.empty() ? "" : ", ") + std::to_string(n);
    fail(ErrorKind::checkpoint,
         "the checkpoint's train_batch_size {} in micro-batches of {} cannot be shared by {} ranks ({}); numbers of "
         "ranks that work: {}",
         train, micro, world, rank.world_source, works);
  }
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
