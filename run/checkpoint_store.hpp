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

/// Looks at the folder of a run's checkpoints, from the highest step down; needs no lock. Nothing if there is no
/// `step-N`; ErrorKind::checkpoint if there are some and none is whole, or if the folder cannot be read: neither is "no
/// checkpoint".
[[nodiscard]] Newest newest_checkpoint(const std::string& folder);

/// What move_aside_above did.
struct MovedAside {
  std::string folder;  ///< where they are now
  std::string steps;   ///< "step-40, step-50"
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
  /// keep_last 0: all stay.
  CheckpointStore(std::string folder, std::int64_t keep_last, std::string run_id);

  /// What a job that was killed left: removes what was under way and brings back a step that was to be replaced.
  void clean_up() const;
  /// Moves every step above `step` to `aside-K/`, so that the highest step is again the one saved last.
  [[nodiscard]] std::optional<MovedAside> move_aside_above(std::int64_t step) const;
  /// Writes step-N and returns its path. Afterwards the newest keep_last of the complete steps up to this one remain,
  /// this one always; steps above it are not touched. `under_way`: see write_checkpoint.
  std::string save(engine::Engine& engine, const RunState& state, const std::function<void()>& under_way = {}) const;

 private:
  [[nodiscard]] std::string path_of(std::int64_t step) const;
  [[nodiscard]] std::string hidden_path(std::int64_t step, const char* state) const;
  /// Of one run id, or of all if it is empty.
  void sweep(const std::string& run_id) const;
  void commit(const std::string& temporary, std::int64_t step) const;
  void retire_below(std::int64_t step) const;

  std::string folder_;
  std::int64_t keep_last_;
  std::string run_id_;
};

}  // namespace lockstep::run
