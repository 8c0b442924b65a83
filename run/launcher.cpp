#include "run/launcher.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>

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
    {"torchrun, or what sets its variables,", "WORLD_SIZE", "RANK"},
    {"srun without MPI", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
    {"MVAPICH's mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
    {"Intel MPI's or MPICH's mpirun", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
    {"jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"},
    {"PALS (aprun)", "PALS_SIZE", "PALS_RANKID"},
    {"Flux", "FLUX_JOB_SIZE", "FLUX_TASK_RANK"},
};

std::string whole_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// The variable in which the launcher told this process its rank; null without one. The first is the innermost: in a
/// Slurm job mpirun has a rank of its own.
const char* own_rank_variable() {
  const auto set = [](const char* name) { return std::getenv(name) != nullptr; };
  const auto* found = std::find_if(std::begin(rank_variables), std::end(rank_variables), set);
  return found == std::end(rank_variables) ? nullptr : *found;
}

/// Whether a process was started as a rank too. Another user's environment cannot be read: that is no rank of ours.
bool is_rank(pid_t process, const char* rank_variable) {
  const std::string environment = '\0' + whole_file(fmt::format("/proc/{}/environ", process));
  return environment.find('\0' + std::string(rank_variable) + '=') != std::string::npos;
}

/// 0 if it cannot be seen, as from inside a container.
pid_t parent_of(pid_t process) {
  // "pid (name) state parent ...", and a name may hold anything.
  const std::string stat = whole_file(fmt::format("/proc/{}/stat", process));
  int parent = 0;
  char state = 0;
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  return std::sscanf(stat.c_str() + name_end + 1, " %c %d", &state, &parent) == 2 ? parent : 0;
}

/// 0 if there is none.
pid_t nearest_that_is_no_rank(pid_t process) {
  const char* variable = own_rank_variable();
  while (variable != nullptr && process > 0 && is_rank(process, variable)) process = parent_of(process);
  return variable == nullptr ? 0 : process;
}

}  // namespace

bool under_launcher() {
  return std::any_of(std::begin(size_variables), std::end(size_variables),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

int launcher_rank() {
  const char* variable = own_rank_variable();
  return variable == nullptr ? 0 : std::atoi(std::getenv(variable));
}

std::string explain_unknown_launcher(const std::function<const char*(const char*)>& environment) {
  for (const ForeignLauncher& launcher : foreign_launchers) {
    const char* size = environment(launcher.size);
    if (size == nullptr || environment(launcher.beside) == nullptr || std::atoi(size) <= 1) continue;
    // mpirun's daemons on other hosts are tasks of srun, and their ranks inherit its variables.
    if (std::string_view(launcher.size) == "SLURM_STEP_NUM_TASKS" && environment("OMPI_COMM_WORLD_SIZE") != nullptr)
      continue;
    return fmt::format(
        "{} started {} processes ({}={}), but none of them would know of the others: each would train the whole job by "
        "itself, in the same folder. Start the job with the mpirun that belongs to the MPI library lockstep was built "
        "with; under Slurm `srun --mpi=pmix` (`srun --mpi=list` shows what there is)",
        launcher.name, size, launcher.size, size);
  }
  return {};
}

LauncherWatch::LauncherWatch() {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before the call.
  if (getppid() != parent) std::_Exit(128 + SIGKILL);

  const pid_t launcher = nearest_that_is_no_rank(parent);
  if (launcher <= 0) return;
  // By number: glibc has no wrapper before 2.36.
  launcher_ = static_cast<int>(syscall(SYS_pidfd_open, launcher, 0));
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (launcher_ < 0 || stop_ < 0) return;
  waiter_ = std::thread([launcher = launcher_, stop = stop_] {
    pollfd ends[2] = {{.fd = launcher, .events = POLLIN, .revents = 0}, {.fd = stop, .events = POLLIN, .revents = 0}};
    while (poll(ends, 2, -1) < 0 && errno == EINTR) {
    }
    if (ends[0].revents != 0) kill(getpid(), SIGKILL);
  });
}

LauncherWatch::~LauncherWatch() {
  if (waiter_.joinable()) {
    (void)eventfd_write(stop_, 1);
    waiter_.join();
  }
  if (stop_ >= 0) close(stop_);
  if (launcher_ >= 0) close(launcher_);
  prctl(PR_SET_PDEATHSIG, 0);
}

void secure_standard_streams() {
  for (int file = 0; file <= 2; ++file)
    if (fcntl(file, F_GETFD) < 0) (void)open("/dev/null", file == 0 ? O_RDONLY : O_WRONLY);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error like a full disk
}

}  // namespace lockstep::run
