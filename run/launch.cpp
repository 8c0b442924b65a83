#include "run/launch.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <set>
#include <thread>

#include "comm/local.hpp"
#include "comm/mpi.hpp"
#include "comm/run_ranks.hpp"
#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/log.hpp"
#include "run/stop_signals.hpp"
#include "kernels/cuda_loader.hpp"

namespace lockstep::run {
namespace {

/// One of them is set in every process that mpirun or srun starts.
constexpr const char* size_variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
constexpr const char* rank_variables[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
/// Set when a user chose a binding; a default binding leaves them unset.
constexpr const char* binding_variables[] = {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_mapping_policy",
                                             "PRTE_MCA_hwloc_default_binding_policy", "SLURM_CPU_BIND",
                                             "HYDRA_BINDING"};

int allowed_cpus(cpu_set_t& set) {
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

bool user_bound() {
  return std::any_of(std::begin(binding_variables), std::end(binding_variables),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

struct Cpus {
  int share = 1;  ///< of this rank
  int host = 1;   ///< of all ranks of this host; with a user's binding only what this rank may use is known
};

/// Lets this process run on every CPU that its control group allows, then on its share of them.
Cpus widen_and_share(int host_rank, int host_size) {
  cpu_set_t set;
  if (user_bound()) {
    const int bound = allowed_cpus(set);
    return {.share = bound, .host = bound};
  }
  CPU_ZERO(&set);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &set);
  (void)sched_setaffinity(0, sizeof(set), &set);  // the kernel keeps what is allowed
  const int host = allowed_cpus(set);
  if (host_size == 1) return {.share = host, .host = host};
  if (host_size > host) return {.share = 1, .host = host};  // the scheduler shares out better than a fixed place
  const int share = host / host_size;
  cpu_set_t own;
  CPU_ZERO(&own);
  int index = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    if (index / share == host_rank) CPU_SET(cpu, &own);
    ++index;
  }
  (void)sched_setaffinity(0, sizeof(own), &own);
  return {.share = share, .host = host};
}

void refuse_missing_device(const job::JobConfig& job) {
  if (job.run.device != "cuda") return;
  (void)load_cuda_module();  // names what is missing: driver, device or module
  fail(ErrorKind::environment,
       "run.device: cuda: the CUDA module of this version has no GEMM and attention yet, so it cannot train; use "
       "device: cpu");
}

/// Kinds that every rank meets at the same step: rank 0 speaks first, so that one text is printed, not N.
bool same_on_all_ranks(ErrorKind kind) {
  return kind == ErrorKind::diverged || kind == ErrorKind::config || kind == ErrorKind::data ||
         kind == ErrorKind::checkpoint || kind == ErrorKind::preempted;
}

void print_error(const std::exception& error, ErrorKind kind, int rank, int size) {
  // What all ranks meet is told without a rank; only one of them tells it.
  if (same_on_all_ranks(kind))
    log::set_rank(0, 1);
  else
    log::set_rank(rank, size);
  if (kind == ErrorKind::preempted)
    log::error("{}", error.what());
  else
    log::error("{}: {}", to_string(kind), error.what());
}

ErrorKind kind_of(const std::exception& error) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  if (ours != nullptr) return ours->kind();
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? ErrorKind::environment : ErrorKind::internal;
}

std::string plural(int n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

/// body on one rank of the CPU, with its error handling. Returns the exit code.
int run_rank(const job::JobConfig& job, comm::Communicator& comm, int threads, const std::string& source,
             const std::string& where, const std::function<void(RankContext&)>& body, bool rethrow) {
  try {
    log::set_rank(comm.rank(), comm.size());
    cpu_set_t set;
    log::debug("pid {}, {} CPUs allowed, {} threads, {}", getpid(), allowed_cpus(set), threads,
               to_string(current_isa()));
    const auto device = make_cpu_device();
    RankContext context{
        .comm = comm,
        .place = {.device = device.get(), .kernels = &kernels::cpu_table(), .threads = threads},
        .world_source = source,
        .summary =
            fmt::format("{} ({}) x {}{}, {} {}", plural(comm.size(), "rank"), comm.name(), plural(threads, "thread"),
                        where, job.run.device == "auto" ? "cpu (auto)" : "cpu", to_string(current_isa()))};
    body(context);
    return 0;
  } catch (const std::exception& error) {
    if (rethrow) throw;
    const ErrorKind kind = kind_of(error);
    if (kind == ErrorKind::preempted) {
      if (comm.rank() == 0) print_error(error, kind, comm.rank(), comm.size());
      return exit_code(kind);
    }
    if (comm.rank() != 0 && same_on_all_ranks(kind)) std::this_thread::sleep_for(std::chrono::seconds(3));
    print_error(error, kind, comm.rank(), comm.size());
    if (comm.size() > 1) comm.abort("", exit_code(kind));
    return exit_code(kind);
  }
}

int run_local(const job::JobConfig& job, int ranks, const std::function<void(RankContext&)>& body) {
  const int cpus = widen_and_share(0, 1).share;
  const int threads = job.run.threads ? static_cast<int>(*job.run.threads) : std::max(1, cpus / ranks);
  try {
    comm::run_ranks(ranks,
                    [&](comm::Communicator& comm) { (void)run_rank(job, comm, threads, "comm.ranks", "", body, true); },
                    {.timeout = comm::Seconds(job.comm.timeout_s)});
    return 0;
  } catch (const std::exception& error) {
    print_error(error, kind_of(error), 0, 1);
    return exit_code(kind_of(error));
  }
}

int run_mpi(const job::JobConfig& job, const std::function<void(RankContext&)>& body) {
  comm::MpiEnvironment mpi;
  const Cpus cpus = widen_and_share(mpi.host_rank(), mpi.host_size());
  const int threads = job.run.threads ? static_cast<int>(*job.run.threads) : cpus.share;
  const bool oversubscribed = user_bound() ? mpi.oversubscribed(threads) : mpi.host_size() * threads > cpus.host;
  const auto comm =
      comm::make_mpi(mpi, {.timeout = comm::Seconds(job.comm.timeout_s), .oversubscribed = oversubscribed});
  const std::set<std::string> hosts(mpi.host_names().begin(), mpi.host_names().end());
  return run_rank(job, *comm, threads, "from MPI",
                  fmt::format(" on {}", plural(static_cast<int>(hosts.size()), "host")), body, false);
}

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

int run_on_ranks(const job::JobConfig& job, const std::function<void(RankContext&)>& body) {
  // Before MPI and OpenMP make threads: they inherit what is blocked.
  const StopSignals signals;
  try {
    refuse_missing_device(job);
    if (job.comm.backend == "nccl")
      fail(ErrorKind::environment, "comm.backend: nccl needs run.device: cuda; on CPUs use mpi, local or auto");
    const bool launcher = under_launcher();
    if (job.comm.backend == "local" || (!launcher && job.comm.backend == "auto" && job.comm.ranks > 1)) {
      if (launcher && launcher_rank() != 0)
        fail(ErrorKind::config, "comm.backend: local makes its ranks in one process; start it without mpirun");
      return run_local(job, static_cast<int>(job.comm.ranks), body);
    }
    if (launcher || job.comm.backend == "mpi") return run_mpi(job, body);
    const int cpus = widen_and_share(0, 1).share;
    const auto comm = comm::make_single();
    return run_rank(job, *comm, job.run.threads ? static_cast<int>(*job.run.threads) : cpus, "no launcher", "", body,
                    false);
  } catch (const std::exception& error) {
    if (launcher_rank() == 0) print_error(error, kind_of(error), 0, 1);
    return exit_code(kind_of(error));
  }
}

}  // namespace lockstep::run
