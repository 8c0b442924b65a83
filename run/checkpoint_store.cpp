#include "run/checkpoint_store.hpp"

#include <algorithm>
#include <charconv>

#include "core/text.hpp"
#include "run/durable_folder.hpp"

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
std::vector<Entry> entries_of(const std::string& folder) {
  std::vector<Entry> result;
  const std::vector<std::string> names = names_in(folder);
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

Newest newest_checkpoint(const std::string& folder) {
  Newest result;
  std::vector<Entry> all = entries_of(folder);
  for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
    try {
      result.manifest = read_manifest(entry->path);
      const Manifest& manifest = result.manifest;
      if (manifest.state.step.attempted != entry->step)
        throw Damaged(fmt::format("{}: is of step {}", printable(entry->path), manifest.state.step.attempted));
      verify_tensors(entry->path, manifest);
      result.path = entry->path;
      return result;
    } catch (const Error& error) {
      // A job that is running may have removed or replaced it meanwhile.
      if (!path_exists(entry->path)) return newest_checkpoint(folder);
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

CheckpointStore::CheckpointStore(std::string folder, std::int64_t keep_last, std::string run_id)
    : folder_(std::move(folder)), keep_last_(keep_last), run_id_(std::move(run_id)) {}

void CheckpointStore::clean_up() const { sweep(""); }

void CheckpointStore::sweep(const std::string& run_id) const {
  bool changed = false;
  for (const std::string& name : names_in(folder_)) {
    const std::optional<Hidden> found = hidden_of(name);
    if (!found || (!run_id.empty() && found->run_id != run_id)) continue;
    if (found->state == "replaced" && !path_exists(path_of(found->step)))
      rename_path(folder_ + "/" + name, path_of(found->step));
    else
      remove_path(folder_ + "/" + name);
    changed = true;
  }
  if (changed) sync_folder(folder_);
}

std::optional<MovedAside> CheckpointStore::move_aside_above(std::int64_t step) const {
  std::string aside, moved;
  for (const Entry& entry : entries_of(folder_)) {
    if (entry.step <= step) continue;
    for (int k = 1; aside.empty(); ++k) {
      const std::string free = fmt::format("{}/aside-{}", folder_, k);
      if (!path_exists(free)) aside = free;
    }
    make_folders(aside);
    rename_path(entry.path, fmt::format("{}/step-{}", aside, entry.step));
    moved += fmt::format("{}step-{}", moved.empty() ? "" : ", ", entry.step);
  }
  if (aside.empty()) return std::nullopt;
  sync_folder(aside);
  sync_folder(folder_);
  return MovedAside{aside, moved};
}

std::string CheckpointStore::save(engine::Engine& engine, const RunState& state,
                                  const std::function<void()>& under_way) const {
  const std::int64_t step = state.step.attempted;
  const std::string temporary = hidden_path(step, "partial");
  make_folders(folder_);
  remove_path(temporary);
  make_folders(temporary);
  try {
    write_checkpoint(temporary, engine, state, under_way);
    commit(temporary, step);
  } catch (const Error& error) {
    try {
      sweep(run_id_);
    } catch (const Error&) {
      // The first error is the one to tell; what is left is swept when the run starts again.
    }
    fail(error.kind(), "the checkpoint of step {} cannot be saved: {}", step, error.what());
  }
  retire_below(step);
  return path_of(step);
}

std::string CheckpointStore::path_of(std::int64_t step) const { return fmt::format("{}/step-{}", folder_, step); }

std::string CheckpointStore::hidden_path(std::int64_t step, const char* state) const {
  return fmt::format("{}/.step-{}.{}-{}", folder_, step, state, run_id_);
}

void CheckpointStore::commit(const std::string& temporary, std::int64_t step) const {
  const std::string replaced = hidden_path(step, "replaced");
  const bool replaces = path_exists(path_of(step));
  if (replaces) rename_path(path_of(step), replaced);
  rename_path(temporary, path_of(step));
  sync_folder(folder_);
  if (replaces) remove_path(replaced);
}

void CheckpointStore::retire_below(std::int64_t step) const {
  if (keep_last_ == 0) return;
  // A folder without a manifest is none of ours, or one to look at: it neither counts nor goes.
  std::vector<Entry> complete;
  for (const Entry& entry : entries_of(folder_))
    if (entry.step <= step && is_folder(entry.path) && path_exists(entry.path + "/manifest.json"))
      complete.push_back(entry);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep_last_) < complete.size(); ++i) {
    // One rename takes it out of the list: a kill while its files go leaves no half of a checkpoint.
    const std::string retired = hidden_path(complete[i].step, "retired");
    rename_path(complete[i].path, retired);
    remove_path(retired);
  }
}

}  // namespace lockstep::run
