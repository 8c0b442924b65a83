#pragma once

#include <functional>
#include <string>
#include <thread>

namespace lockstep::run {

// What started this process, as its environment says: before MPI, and without it.

/// Whether mpirun or srun started this process, as one of several ranks or as one of one.
[[nodiscard]] bool under_launcher();
/// This process's rank as the launcher's environment says, 0 without one: for messages before MPI is up.
[[nodiscard]] int launcher_rank();

/// For a process that is one rank as far as MPI knows, or that does without MPI: the explanation if its environment
/// says that it is one of several. Started by torchrun, by `srun --mpi=none` or by another MPI's launcher, each of them
/// would train the same job by itself. Environments without an entry here meet the lock of the run's folder.
[[nodiscard]] std::string explain_unknown_launcher(const std::function<const char*(const char*)>& environment);

/// While one lives, this process ends when its launcher does, however that happens: an mpirun that is killed takes no
/// leave of its ranks. The end is SIGKILL, at once: what a run has saved is durable, and a rank that wrote on for
/// seconds could meet the job that takes its place.
///
/// The launcher is the nearest ancestor that is not itself a rank: mpirun, or its daemon on another host, which ends
/// when it loses mpirun. Two means, because each misses a case:
///   - PR_SET_PDEATHSIG reaches a stopped process too, but only if its direct parent ends; Linux ties it to the thread
///     that forked (launchers fork from their main thread), and an exec of a setuid program clears it.
///   - A thread that waits for the ancestor itself sees past a wrapper script between the two.
/// A launcher that ended before this object was made is met by MPI_Init, which finds no daemon.
class LauncherWatch {
 public:
  LauncherWatch();
  LauncherWatch(const LauncherWatch&) = delete;
  LauncherWatch& operator=(const LauncherWatch&) = delete;
  ~LauncherWatch();

 private:
  int launcher_ = -1;  ///< a descriptor of the process
  int stop_ = -1;      ///< ends the wait
  std::thread waiter_;
};

/// Files 0, 1 and 2 are open from here on (on /dev/null if they were not), so that no file of a run gets their numbers,
/// and a reader that goes away ends nothing.
void secure_standard_streams();

}  // namespace lockstep::run
