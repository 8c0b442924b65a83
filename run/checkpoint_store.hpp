#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "run/checkpoint.hpp"

namespace lockstep::run {

/// The newest checkpoint that is whole, and what was wrong with those passed over on the way to it.
struct Newest {
  std::optional<std::string> path;
  Manifest manifest;  ///< of that one
  std::vector<std::string> passed_over;
};

/// The checkpoints of a run's folder of them, lowest step first, whole or not.
[[nodiscard]] std::vector<std::string> checkpoint_paths(const std::string& folder);

/// Looks at the folder of a run's checkpoints, from the highest step down; needs no lock. Nothing if there is no
/// `step-N`; ErrorKind::checkpoint if there are some and none is whole, or if the folder cannot be read: neither is "no
/// checkpoint".
[[nodiscard]] Newest newest_checkpoint(const std::string& folder, files::FileSystem& fs = files::disk());

/// What move_aside_above did.
struct MovedAside {
  std::string folder;  ///< where they are now
  std::string steps;   ///< "step-40, step-50"
};

/// How a save ended, the same on every rank.
struct Saved {
  std::string path;     ///< of the checkpoint; empty: there is none, and the older ones are as they were
  std::string trouble;  ///< what the disk refused, for people; empty: nothing
};

/// What else is done in the course of a save. On other threads than the caller's, perhaps.
struct SaveHooks {
  std::function<void()> before = {};     ///< rank 0, first of all
  std::function<void()> writing = {};    ///< every rank, when its shards are written and none of them is flushed
  std::function<void()> under_way = {};  ///< rank 0, when all shards are on the disk, before the manifest
};

/// Where and how checkpoints are kept.
struct StoreOptions {
  std::string folder;
  std::int64_t keep_last = 0;   ///< 0: all stay
  std::int64_t keep_every = 0;  ///< steps that are multiples of it stay, whatever keep_last says; 0: none of them
  std::string run_id;           ///< of rank 0's lock; of no meaning on other ranks
  comm::Seconds heartbeat{1};   ///< between the signs of life of ranks that wait for each other's disks
};

/// Changes the checkpoints of one run: folders `step-N` under `folder`.
///
/// A checkpoint gets its name by one rename, when it is complete and on the disk. Everything under way has a hidden
/// name with the run's id: `.step-N.partial-ID` (being written), `.step-N.replaced-ID` (making room for another
/// step-N),
/// `.step-N.retired-ID` (being removed). Only who holds the run's lock (run_folder.hpp) may have one. Names like
/// `step-old` belong to somebody else and are left alone.
class CheckpointStore {
 public:
  explicit CheckpointStore(StoreOptions options, files::FileSystem& fs = files::disk());

  /// What a job that was killed left: removes what was under way and brings back a step that was to be replaced.
  void clean_up() const;
  /// Removes step-N, which lies at `path`: one rename takes it out of the list, so that a kill while its files go
  /// leaves no half of it.
  void remove(const std::string& path, std::int64_t step) const;
  /// Moves every step above `step` to `aside-K/`, so that the highest step is again the one saved last.
  [[nodiscard]] std::optional<MovedAside> move_aside_above(std::int64_t step) const;
  /// Writes step-N. Collective: each rank writes its share, rank 0 the rest. Afterwards the newest keep_last of the
  /// complete steps up to this one remain, this one always; steps above it are not touched.
  ///
  /// A disk that is full or fails on any rank is no exception: all ranks agree to give this save up, nothing of it is
  /// left, and Saved::trouble says why. Other errors of any rank are thrown on all.
  Saved save(engine::Engine& engine, const RunState& state, const SaveHooks& hooks = {}) const;

  // The parts of a save, for who does them beside training (background_save.hpp). Rank-local, on any thread.

  [[nodiscard]] const StoreOptions& options() const { return options_; }
  [[nodiscard]] files::FileSystem& file_system() const { return fs_; }
  /// Where rank 0 lets all ranks write step-N.
  [[nodiscard]] std::string temporary_path(std::int64_t step) const { return hidden_path(step, "partial"); }
  /// Rank 0: the empty folder to write into. Refuses at once where there is no space for `bytes`.
  void prepare(const std::string& temporary, std::uint64_t bytes) const;
  /// Every other rank, before it writes there: ErrorKind::checkpoint if it does not see that folder.
  void require_shared(const std::string& temporary) const;
  /// Rank 0, when every shard is on the disk: writes the manifest, gives the folder its name and lets old ones go.
  /// Saved::path is set as soon as the name is; what is thrown then is of the old ones. If nothing is in place after an
  /// error, nothing of it is left either.
  void complete(const std::string& temporary, const Manifest& manifest, Saved& saved) const;
  /// Rank 0: nothing of a save under way is left, if the disk lets that be.
  void give_up() const;

 private:
  [[nodiscard]] std::string path_of(std::int64_t step) const;
  [[nodiscard]] std::string hidden_path(std::int64_t step, const char* state) const;
  /// Of one run id, or of all if it is empty.
  void sweep(const std::string& run_id) const;
  void commit(const std::string& temporary, std::int64_t step, Saved& saved) const;
  void retire_below(std::int64_t step) const;

  StoreOptions options_;
  files::FileSystem& fs_;
};

/// Collective: all ranks' entries, on every rank.
void gather_entries(comm::Communicator& comm, std::vector<FileEntry>& entries);
/// Collective: how a save of `step` ended, by rank 0's `saved` and the error that all ranks agree on. A disk that is
/// full or has failed is Saved::trouble; other errors are thrown.
[[nodiscard]] Saved outcome_of_save(comm::Communicator& comm, std::int64_t step, Saved saved, const FirstError& error);

}  // namespace lockstep::run
