#pragma once

#include <cstdint>
#include <string>

namespace lockstep::run {

// What `lockstep ckpt` says of checkpoints, and does with them. `source` is a run's folder or a checkpoint's; nothing
// is changed and no lock is needed but for prune. ErrorKind::config for a folder that is neither.

/// What a command prints, and whether all is as it should be.
struct CheckpointReport {
  std::string text;
  bool good = true;
};

/// A line for each step: its bytes, number of ranks, samples and loss scale, by its manifest. Not good if a manifest is
/// missing or damaged; what the other files hold is not looked at.
[[nodiscard]] CheckpointReport list_checkpoints(const std::string& source);

/// The same after reading every byte: not good, with what is wrong, if one is damaged.
[[nodiscard]] CheckpointReport verify_checkpoints(const std::string& source);

/// Two checkpoints tensor by tensor: how many elements have other bits, and the largest difference. Good if none has.
[[nodiscard]] CheckpointReport diff_checkpoints(const std::string& a, const std::string& b);

/// Which checkpoints of a run stay.
struct Keep {
  std::int64_t last = 1;   ///< so many of the newest that are whole
  std::int64_t every = 0;  ///< steps that are multiples of it; 0: none for that
  bool only_tell = false;  ///< remove nothing
};
/// Removes what `keep` does not keep of a run's checkpoints, under the run's lock (ErrorKind::environment while a job
/// has it). A checkpoint that is damaged neither counts as one of the newest nor goes, since somebody may want to look
/// at it: then the report is not good. Those that would stay are read to the last byte first.
[[nodiscard]] CheckpointReport prune_checkpoints(const std::string& run_folder, const Keep& keep);

}  // namespace lockstep::run
