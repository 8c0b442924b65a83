#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace lockstep::run {

/// The first `name` in the folders of PATH that may be executed; nothing without one.
[[nodiscard]] std::optional<std::string> program_in_path(const std::string& name);

/// A job under mpirun on this host, started without a shell, that may be killed at any moment and leaves nothing
/// behind. Its processes carry a mark in their environment and are found by it, whatever scripts lie between.
/// One thread uses it. It ends with the process that made it.
class ChildJob {
 public:
  struct Options {
    std::string mpirun;                ///< path
    int ranks = 1;                     ///< more than there are CPUs are let in
    std::vector<std::string> command;  ///< program and arguments, path first
    std::string log;                   ///< a file that gets both streams, anew
    /// Environment variables: a value, or nothing: unset.
    std::map<std::string, std::optional<std::string>> environment = {};
  };
  /// What killed processes left where the system does not clear it away.
  struct Leftovers {
    int library_blocks = 0;      ///< shared memory of the MPI library
    int library_folders = 0;     ///< of mpirun, under the temporary folder
    int lockstep_blocks = 0;     ///< shared memory of Lockstep's own
    std::string first_own = {};  ///< a name of the latter
    Leftovers& operator+=(const Leftovers& other);
  };

  /// ErrorKind::environment if it cannot be started.
  explicit ChildJob(const Options& options);
  ChildJob(const ChildJob&) = delete;
  ChildJob& operator=(const ChildJob&) = delete;
  /// Kills what still lives.
  ~ChildJob();

  /// Whether mpirun has ended; exit_code() is valid from then on, 128 + signal if one ended it.
  [[nodiscard]] bool ended();
  [[nodiscard]] int exit_code() const { return exit_code_; }
  [[nodiscard]] pid_t launcher() const { return launcher_; }
  /// Ranks that live now.
  [[nodiscard]] std::map<int, pid_t> ranks() const;

  /// Notes what shared memory and which folder the job's processes hold now: before they are killed.
  void look();
  /// SIGKILL to mpirun (nothing) or to a rank's process. False: it had ended already.
  bool kill_one(std::optional<pid_t> rank);
  /// Waits for mpirun's end (which may give the other ranks a second or more after it has lost one), then until no
  /// process of the job lives; those that do `patience` later are returned, and killed. One that is dying, and waits
  /// for a slow disk to let it, is waited for up to a minute.
  std::vector<pid_t> wait_gone(std::chrono::milliseconds patience);
  /// Once nothing lives: removes what look() noted and is still there, and says what that was.
  Leftovers sweep();

 private:
  [[nodiscard]] std::vector<pid_t> marked() const;

  std::string mark_;
  pid_t launcher_ = -1;
  std::uint64_t started_ = 0;  ///< mpirun, in the clock of /proc: no process of the job is older
  mutable std::set<std::pair<pid_t, std::uint64_t>>
      strangers_;  ///< processes, with their starts, that are not of the job
  bool ended_ = false;
  int exit_code_ = -1;
  std::set<std::string> blocks_;   ///< files of /dev/shm
  std::set<std::string> folders_;  ///< mpirun's own
};

}  // namespace lockstep::run
