#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "run/checkpoint_store.hpp"

namespace lockstep::run {

/// Saves beside training, one checkpoint at a time.
///
///   begin    the ranks copy what they write (ShardSnapshot); training goes on when begin() returns
///   prepare  rank 0: space, folder                                     |
///   write    every rank: its shards, written, hashed, flushed          |  each on a thread of the rank's own
///   commit   rank 0: manifest, rename, older checkpoints go            |
///
/// A part begins on all ranks after the same step: the first whose reports say that no rank is busy any more
/// (Engine::still_busy, which travels with every step anyway). So nobody waits, and the name is given only when every
/// rank's shards are on the disk. What is written is what CheckpointStore::save would have written at begin(), to the
/// byte. A disk that is full or fails ends a save as it does there.
class BackgroundSave {
 public:
  /// Takes the memory for the copy. Both must outlive it.
  BackgroundSave(const CheckpointStore& store, engine::Engine& engine);
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;
  /// What is being written is given up, and swept when the run starts again; a commit is waited for.
  ~BackgroundSave();

  [[nodiscard]] std::size_t bytes() const { return snapshot_.bytes(); }

  /// Collective; no step in flight, and no save under way. The hooks are called on other threads.
  void begin(const RunState& state, SaveHooks hooks);
  [[nodiscard]] bool under_way() const { return part_ != Part::none; }
  /// Before each step: lets its report say whether this rank is busy.
  void report();
  /// Collective, after a step whose report says that no rank is busy: goes on to the next part. How the save ended, if
  /// it has; errors that are not the disk's are thrown on all ranks.
  std::optional<Saved> advance();
  /// Collective: waits for the save under way.
  Saved finish();
  /// What it kept this rank busy for, in seconds: the copy and the parts, without the time between them.
  [[nodiscard]] double seconds() const { return seconds_; }

 private:
  enum class Part { none, prepare, write, commit, give_up };
  void start(Part part);
  void work();
  [[nodiscard]] bool root() const { return engine_.comm().rank() == 0; }

  const CheckpointStore& store_;
  engine::Engine& engine_;
  ShardSnapshot snapshot_;
  Part part_ = Part::none;
  // Of the save under way:
  Manifest manifest_;  ///< its files: this rank's, then all ranks'
  SaveHooks hooks_;
  std::string temporary_;
  std::uint64_t needed_ = 0;  ///< bytes on the disk
  FirstError error_;
  Saved saved_;  ///< on rank 0
  double seconds_ = 0;
  std::atomic<bool> over_{true};
  std::atomic<bool> cancelled_{false};
  std::jthread thread_;  // last: it uses the others
};

}  // namespace lockstep::run
