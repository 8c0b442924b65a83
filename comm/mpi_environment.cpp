#include <mpi.h>
#include <sched.h>

#include <array>
#include <cstdlib>
#include <exception>

#include "comm/mpi.hpp"
#include "core/error.hpp"

namespace lockstep::comm {
namespace {

std::string library_name() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string_view full(text.data(), static_cast<std::size_t>(length));
  // "Open MPI v4.1.4, package: ..."
  std::string name(full.substr(0, full.find_first_of(",\n")));
  if (const auto at = name.find(" v"); at != std::string::npos) name.erase(at + 1, 1);
  return name;
}

std::vector<std::string> gather_host_names(int size) {
  std::array<char, MPI_MAX_PROCESSOR_NAME> mine{};
  int length = 0;
  MPI_Get_processor_name(mine.data(), &length);
  std::vector<std::array<char, MPI_MAX_PROCESSOR_NAME>> all(static_cast<std::size_t>(size));
  MPI_Allgather(mine.data(), MPI_MAX_PROCESSOR_NAME, MPI_CHAR, all.data(), MPI_MAX_PROCESSOR_NAME, MPI_CHAR,
                MPI_COMM_WORLD);
  std::vector<std::string> names;
  for (const auto& name : all) names.emplace_back(name.data());
  return names;
}

/// Ranks may be bound to different CPUs: the host has what their masks have together.
int count_cpus(MPI_Comm host) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) CPU_SET(0, &mine);
  cpu_set_t together;
  MPI_Allreduce(&mine, &together, static_cast<int>(sizeof(mine)), MPI_BYTE, MPI_BOR, host);
  return CPU_COUNT(&together);
}

}  // namespace

std::string explain_launcher_mismatch(int mpi_size, const std::function<const char*(const char*)>& environment) {
  if (mpi_size > 1) return {};
  // SLURM_NTASKS alone says nothing: it is set in a batch script that starts one process. SLURM_STEP_NUM_TASKS is
  // srun's own; but ranks of an mpirun's daemon that srun started on another host inherit it.
  const bool by_mpirun = environment("OMPI_COMM_WORLD_SIZE") != nullptr;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (by_mpirun && std::string_view(name) == "SLURM_STEP_NUM_TASKS") continue;
    const char* value = environment(name);
    const int claimed = value != nullptr ? std::atoi(value) : 0;
    if (claimed > 1)
      return fmt::format(
          "the launcher started {} ranks ({}={}), but MPI found only this one: each process would train by itself. The "
          "launcher belongs to another MPI library, or it does not speak its start-up protocol. Use the mpirun that "
          "belongs to the library lockstep was built with; under Slurm try `srun --mpi=pmix` (`srun --mpi=list` shows "
          "what there is) or mpirun inside the allocation",
          claimed, name, value);
  }
  return {};
}

MpiEnvironment::MpiEnvironment() : exceptions_at_birth_(std::uncaught_exceptions()) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) {
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
      fail(ErrorKind::environment, "MPI could not be started; run `mpirun -n 1 hostname` to see its own message");
    finalize_ = true;
    if (provided < MPI_THREAD_FUNNELED) {
      MPI_Finalize();
      fail(ErrorKind::environment, "this MPI library was built without thread support; MPI_THREAD_FUNNELED is needed");
    }
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size_);
  library_ = library_name();
  if (const std::string mismatch = explain_launcher_mismatch(world_size_, [](const char* n) { return std::getenv(n); });
      !mismatch.empty()) {
    if (finalize_) MPI_Finalize();
    throw Error(ErrorKind::environment, mismatch);
  }
  host_names_ = gather_host_names(world_size_);
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_rank_, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &host_rank_);
  MPI_Comm_size(host, &host_size_);
  host_cpus_ = count_cpus(host);
  MPI_Comm_free(&host);
}

MpiEnvironment::~MpiEnvironment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // While an exception unwinds the others are somewhere else and MPI_Finalize would wait for them forever.
  if (finalize_ && finalized == 0 && std::uncaught_exceptions() == exceptions_at_birth_) MPI_Finalize();
}

}  // namespace lockstep::comm
