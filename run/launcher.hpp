#pragma once

#include <functional>
#include <string>

namespace lockstep::run {

// What started this process, as its environment says: before MPI, and without it.

/// Whether mpirun or srun started this process, as one of several ranks or as one of one.
[[nodiscard]] bool under_launcher();
/// This process's rank as the launcher's environment says, 0 without one: for messages before MPI is up.
[[nodiscard]] int launcher_rank();

/// Without MPI this process is one rank. The explanation if its environment says that it is one of several: started
/// by torchrun, by `srun --mpi=none` or by another MPI's launcher, each would train the same job by itself.
[[nodiscard]] std::string explain_unknown_launcher(const std::function<const char*(const char*)>& environment);

/// Ends this process when the one that started it ends, however that happens: mpirun that is killed takes no leave of
/// its ranks. The kernel sends SIGKILL at once: what a run saves is durable, and a rank that wrote on for seconds could
/// meet the job that takes its place. Linux ties this to the thread that forked; launchers fork from their main thread.
void end_with_parent();

/// Files 0, 1 and 2 are open from here on (on /dev/null if they were not), so that no file of a run gets their numbers,
/// and a reader that goes away ends nothing.
void secure_standard_streams();

}  // namespace lockstep::run
