#include "run/checkpoint_store.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "comm/heartbeat.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"

namespace lockstep::run {
namespace {

/// N of "step-N", in the one spelling that save() uses.
std::optional<std::int64_t> step_of(std::string_view name) {
  if (name.rfind("step-", 0) != 0) return std::nullopt;
  std::int64_t step = 0;
  const auto [stop, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (error != std::errc() || name != fmt::format("step-{}", step) || step < 0) return std::nullopt;
  return step;
}

/// A name of something under way.
struct Hidden {
  std::int64_t step = 0;
  std::string_view state;  ///< partial | replaced | retired
  std::string_view run_id;
};

std::optional<Hidden> hidden_of(std::string_view name) {
  const std::size_t dot = name.find('.', 1), dash = name.find('-', dot + 1);
  if (name.empty() || name[0] != '.' || dot == std::string_view::npos || dash == std::string_view::npos)
    return std::nullopt;
  const std::optional<std::int64_t> step = step_of(name.substr(1, dot - 1));
  const std::string_view state = name.substr(dot + 1, dash - dot - 1);
  if (!step || (state != "partial" && state != "replaced" && state != "retired")) return std::nullopt;
  return Hidden{*step, state, name.substr(dash + 1)};
}

struct Entry {
  std::int64_t step = 0;
  std::string path;
};

/// The steps of a folder, lowest first.
std::vector<Entry> entries_of(const std::string& folder, files::FileSystem& fs) {
  std::vector<Entry> result;
  const std::vector<std::string> names = files::names_in(folder, fs);
  for (const std::string& name : names) {
    std::optional<std::int64_t> step = step_of(name);
    const std::optional<Hidden> found = hidden_of(name);
    // Between two renames of a save the step has only this name.
    if (found && found->state == "replaced" &&
        !std::binary_search(names.begin(), names.end(), fmt::format("step-{}", found->step)))
      step = found->step;
    if (step) result.push_back({.step = *step, .path = folder + "/" + name});
  }
  std::sort(result.begin(), result.end(), [](const Entry& a, const Entry& b) { return a.step < b.step; });
  return result;
}

}  // namespace

std::vector<std::string> checkpoint_paths(const std::string& folder) {
  std::vector<std::string> paths;
  for (const Entry& entry : entries_of(folder, files::disk())) paths.push_back(entry.path);
  return paths;
}

Newest newest_checkpoint(const std::string& folder, files::FileSystem& fs) {
  Newest result;
  std::vector<Entry> all = entries_of(folder, fs);
  for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
    try {
      result.manifest = read_manifest(entry->path, fs);
      const Manifest& manifest = result.manifest;
      if (manifest.state.step.attempted != entry->step)
        throw Damaged(fmt::format("{}: is of step {}", printable(entry->path), manifest.state.step.attempted));
      verify_files(entry->path, manifest, fs);
      result.path = entry->path;
      return result;
    } catch (const Error& error) {
      // A job that is running may have removed or replaced it meanwhile.
      if (!files::path_exists(entry->path, fs)) return newest_checkpoint(folder, fs);
      if (dynamic_cast<const Damaged*>(&error) == nullptr) throw;
      result.passed_over.emplace_back(error.what());
    }
  }
  if (!all.empty())
    fail(ErrorKind::checkpoint,
         "{}: not one of the checkpoints there is whole:\n  {}\n"
         "  Put back a good copy, name one with --resume FOLDER, or start anew with --resume never, which keeps all "
         "this aside",
         printable(folder), fmt::join(result.passed_over, "\n  "));
  return result;
}

CheckpointStore::CheckpointStore(StoreOptions options, files::FileSystem& fs) : options_(std::move(options)), fs_(fs) {}

void CheckpointStore::clean_up() const { sweep(""); }

void CheckpointStore::sweep(const std::string& run_id) const {
  bool changed = false;
  for (const std::string& name : files::names_in(options_.folder, fs_)) {
    const std::optional<Hidden> found = hidden_of(name);
    if (!found || (!run_id.empty() && found->run_id != run_id)) continue;
    if (found->state == "replaced" && !files::path_exists(path_of(found->step), fs_))
      files::rename_path(options_.folder + "/" + name, path_of(found->step), fs_);
    else
      files::remove_path(options_.folder + "/" + name, fs_);
    changed = true;
  }
  if (changed) files::sync_folder(options_.folder, fs_);
}

std::optional<MovedAside> CheckpointStore::move_aside_above(std::int64_t step) const {
  std::string aside, moved;
  for (const Entry& entry : entries_of(options_.folder, fs_)) {
    if (entry.step <= step) continue;
    for (int k = 1; aside.empty(); ++k) {
      const std::string free = fmt::format("{}/aside-{}", options_.folder, k);
      if (!files::path_exists(free, fs_)) aside = free;
    }
    files::make_folders(aside, fs_);
    files::rename_path(entry.path, fmt::format("{}/step-{}", aside, entry.step), fs_);
    moved += fmt::format("{}step-{}", moved.empty() ? "" : ", ", entry.step);
  }
  if (aside.empty()) return std::nullopt;
  files::sync_folder(aside, fs_);
  files::sync_folder(options_.folder, fs_);
  return MovedAside{aside, moved};
}

Saved CheckpointStore::save(engine::Engine& engine, const RunState& state, const SaveHooks& hooks) const {
  comm::Communicator& comm = engine.comm();
  const bool root = comm.rank() == 0;
  const std::int64_t step = state.step.attempted;
  const std::string what = fmt::format("saving step {}", step);
  std::string temporary = temporary_path(step);
  comm.broadcast_text(temporary, 0);
  FirstError error;
  // What a disk may take its time for. Errors are kept, and compared when all are back.
  const auto with_heartbeat = [&](const std::function<void()>& work) {
    comm::run_with_heartbeat(
        comm, what, [&] { error.unless_failed(work); }, options_.heartbeat);
    error.agree(comm);
  };
  Saved saved;

  with_heartbeat([&] {
    if (!root) return;
    if (hooks.before) hooks.before();
    prepare(temporary, checkpoint_bytes(engine));
  });
  std::vector<FileEntry> entries;
  if (!error.failed()) {
    error.unless_failed([&] { require_shared(temporary); });
    ShardWriter shards(temporary, engine, error, fs_);
    with_heartbeat([&] {
      if (hooks.writing) hooks.writing();
      entries = shards.finish();
    });
  }
  if (!error.failed()) gather_entries(comm, entries);
  if (!error.failed())
    with_heartbeat([&] {
      if (!root) return;
      if (hooks.under_way) hooks.under_way();
      complete(temporary, {.state = state, .files = entries, .tensors = tensors_of(engine)}, saved);
    });
  if (error.failed())
    comm::run_with_heartbeat(
        comm, what,
        [&] {
          if (root && saved.path.empty()) give_up();
        },
        options_.heartbeat);
  return outcome_of_save(comm, step, std::move(saved), error);
}

void CheckpointStore::complete(const std::string& temporary, const Manifest& manifest, Saved& saved) const {
  const std::int64_t step = manifest.state.step.attempted;
  finish_checkpoint(temporary, manifest, fs_);
  commit(temporary, step, saved);
  if (!saved.trouble.empty()) return;
  constexpr const char* before = "an old checkpoint cannot be removed: ";
  try {
    files::remove_path(hidden_path(step, "replaced"), fs_);
    retire_below(step);
  } catch (const files::DiskTrouble& trouble) {
    saved.trouble = before + std::string(trouble.what());
  } catch (const Error& error) {
    throw Error(error.kind(), before + std::string(error.what()));
  }
}

void CheckpointStore::give_up() const {
  FirstError ignored;  // the first error is the one to tell; what is left is swept at the next save or start
  ignored.unless_failed([&] { sweep(options_.run_id); });
}

void CheckpointStore::prepare(const std::string& temporary, std::uint64_t bytes) const {
  files::make_folders(options_.folder, fs_);
  sweep(options_.run_id);  // what an earlier save could not remove
  std::uint64_t free = 0;
  // A tenth more: folders and the file system's own blocks.
  const double needed = 1.1 * static_cast<double>(bytes);
  if (fs_.free_bytes(options_.folder, free) == 0 && static_cast<double>(free) < needed)
    throw files::DiskTrouble(fmt::format("{}: a checkpoint needs {}, and {} are free there", printable(options_.folder),
                                         human_bytes(needed), human_bytes(static_cast<double>(free))));
  files::make_folders(temporary, fs_);
}

void CheckpointStore::require_shared(const std::string& temporary) const {
  if (!files::is_folder(temporary, fs_))
    fail(ErrorKind::checkpoint,
         "{}: rank 0 has made this folder, but it is not here: all hosts need the run's folder on a file system that "
         "they share",
         printable(temporary));
}

std::string CheckpointStore::path_of(std::int64_t step) const {
  return fmt::format("{}/step-{}", options_.folder, step);
}

std::string CheckpointStore::hidden_path(std::int64_t step, const char* state) const {
  return fmt::format("{}/.step-{}.{}-{}", options_.folder, step, state, options_.run_id);
}

void CheckpointStore::commit(const std::string& temporary, std::int64_t step, Saved& saved) const {
  if (files::path_exists(path_of(step), fs_)) files::rename_path(path_of(step), hidden_path(step, "replaced"), fs_);
  files::rename_path(temporary, path_of(step), fs_);
  saved.path = path_of(step);
  try {
    files::sync_folder(options_.folder, fs_);
  } catch (const files::DiskTrouble& trouble) {
    // It can be read under its name; whether the name outlives a loss of power nobody knows. So the older ones stay.
    saved.trouble = fmt::format(
        "{}; step-{} is in its place and whole, but after a loss of power it may be gone; no older checkpoint is "
        "removed. Look at the disk",
        trouble.what(), step);
  }
}

void CheckpointStore::remove(const std::string& path, std::int64_t step) const {
  const std::string retired = hidden_path(step, "retired");
  files::rename_path(path, retired, fs_);
  files::sync_folder(options_.folder, fs_);
  files::remove_path(retired, fs_);
}

void CheckpointStore::retire_below(std::int64_t step) const {
  if (options_.keep_last == 0) return;
  // A folder without a manifest is none of ours, or one to look at: it neither counts nor goes.
  std::vector<Entry> complete;
  for (const Entry& entry : entries_of(options_.folder, fs_))
    if (entry.step <= step && files::is_folder(entry.path, fs_) &&
        files::path_exists(entry.path + "/manifest.json", fs_))
      complete.push_back(entry);
  for (std::size_t i = 0; i + static_cast<std::size_t>(options_.keep_last) < complete.size(); ++i) {
    if (options_.keep_every > 0 && complete[i].step % options_.keep_every == 0) continue;
    remove(complete[i].path, complete[i].step);
  }
}

void gather_entries(comm::Communicator& comm, std::vector<FileEntry>& entries) {
  std::string own;
  for (const FileEntry& entry : entries)
    own += fmt::format("{} {} {}\n", entry.name, entry.sum.bytes, entry.sum.xxh3_128);
  entries.clear();
  for (int r = 0; r < comm.size(); ++r) {
    std::string text = own;
    comm.broadcast_text(text, r);
    std::istringstream lines(text);
    for (FileEntry entry; lines >> entry.name >> entry.sum.bytes >> entry.sum.xxh3_128;) entries.push_back(entry);
  }
}

Saved outcome_of_save(comm::Communicator& comm, std::int64_t step, Saved saved, const FirstError& error) {
  comm.broadcast_text(saved.path, 0);
  comm.broadcast_text(saved.trouble, 0);
  try {
    error.rethrow(saved.path.empty() ? fmt::format("the checkpoint of step {} cannot be saved: ", step) : "");
  } catch (const files::DiskTrouble& trouble) {
    saved.trouble = trouble.what();
  }
  return saved;
}

}  // namespace lockstep::run
