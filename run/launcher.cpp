#include "run/launcher.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iterator>

namespace lockstep::run {
namespace {

/// One of them is set in every process that mpirun or srun starts.
constexpr const char* size_variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
constexpr const char* rank_variables[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "RANK"};

/// Launchers that do not speak this MPI's start-up protocol: the number of processes, and what must be set beside it
/// for it to count (a batch script may export a size of its own accord).
struct ForeignLauncher {
  const char* name;
  const char* size;
  const char* beside;
};
constexpr ForeignLauncher foreign_launchers[] = {
    {"srun without MPI", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
    {"torchrun", "WORLD_SIZE", "LOCAL_RANK"},
    {"MVAPICH's mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
    {"Intel MPI's or MPICH's mpirun", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
    {"jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"},
    {"PALS (aprun)", "PALS_SIZE", "PALS_RANKID"},
    {"Flux", "FLUX_JOB_SIZE", "FLUX_TASK_RANK"},
};

}  // namespace

bool under_launcher() {
  return std::any_of(std::begin(size_variables), std::end(size_variables),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

int launcher_rank() {
  for (const char* name : rank_variables)
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 0;
}

std::string explain_unknown_launcher(const std::function<const char*(const char*)>& environment) {
  for (const ForeignLauncher& launcher : foreign_launchers) {
    const char* size = environment(launcher.size);
    if (size == nullptr || environment(launcher.beside) == nullptr || std::atoi(size) <= 1) continue;
    return fmt::format(
        "{} started {} processes ({}={}), but none of them would know of the others: each would train the whole job by "
        "itself, in the same folder. Start the job with the mpirun that belongs to the MPI library lockstep was built "
        "with; under Slurm `srun --mpi=pmix` (`srun --mpi=list` shows what there is)",
        launcher.name, size, launcher.size, size);
  }
  return {};
}

void end_with_parent() {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before the call.
  if (getppid() != parent) std::_Exit(128 + SIGKILL);
}

void secure_standard_streams() {
  for (int file = 0; file <= 2; ++file)
    if (fcntl(file, F_GETFD) < 0) (void)open("/dev/null", file == 0 ? O_RDONLY : O_WRONLY);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error like a full disk
}

}  // namespace lockstep::run
