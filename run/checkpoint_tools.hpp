#pragma once

#include <string>

namespace lockstep::run {

// What `lockstep ckpt` says of checkpoints. `source` is a run's folder or a checkpoint's; nothing is changed, and no
// lock is needed. ErrorKind::config for a folder that is neither.

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

}  // namespace lockstep::run
