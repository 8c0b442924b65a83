#pragma once

#include <chrono>
#include <string>

#include "job/job.hpp"

namespace lockstep::run {

/// The run's folder: <output_dir>/<name>.
[[nodiscard]] std::string run_folder(const job::JobConfig& job);

/// The right to change one run's folder: nobody else has it while this object lives.
///
/// It is a flock on the file `.<name>.lock` beside the folder, not in it: a folder that is moved aside takes no lock
/// with it, and there is no moment at which two jobs hold different files. The file stays when the job ends; only the
/// lock on it counts, which the system drops with the process, however that ends. The file says who holds it.
/// flock also excludes jobs of other hosts on NFS (Linux 2.6.12 and later), where the mount has locks.
class RunLock {
 public:
  /// ErrorKind::environment, with who has it, if it is not free within `patience`: a job that was just killed may take
  /// a moment to be gone.
  explicit RunLock(const std::string& run_folder, std::chrono::milliseconds patience = std::chrono::seconds(3));
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();

  /// A name for this holding, in hex: no other one has it.
  [[nodiscard]] const std::string& run_id() const { return run_id_; }
  /// Whether the file system has locks at all. Without them two jobs would not notice each other.
  [[nodiscard]] bool effective() const { return effective_; }

 private:
  int file_ = -1;
  bool effective_ = true;
  std::string run_id_;
};

/// Where the lock of a run's folder lies.
[[nodiscard]] std::string lock_path(const std::string& run_folder);

/// Moves a run's folder to <folder>.old-N, the first that is free, and returns that name.
std::string move_folder_aside(const std::string& run_folder);

}  // namespace lockstep::run
