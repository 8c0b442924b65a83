#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <exception>
#include <map>

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

std::vector<int> number_hosts(MPI_Comm host, int size, int rank) {
  int first = rank;
  MPI_Bcast(&first, 1, MPI_INT, 0, host);  // ranks of a host are in the order of their world ranks
  std::vector<int> firsts(static_cast<std::size_t>(size));
  MPI_Allgather(&first, 1, MPI_INT, firsts.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::map<int, int> numbers;
  std::vector<int> hosts;
  for (const int of_host : firsts)
    hosts.push_back(numbers.emplace(of_host, static_cast<int>(numbers.size())).first->second);
  return hosts;
}

}  // namespace

HostLayout host_layout(const std::vector<int>& hosts, int rank) {
  HostLayout layout{.host = hosts};
  const auto size = static_cast<int>(hosts.size());
  std::vector<int> ranks_of;
  bool consecutive = true;
  for (int r = 0; r < size; ++r) {
    const auto at = static_cast<std::size_t>(r);
    if (hosts[at] == hosts[static_cast<std::size_t>(rank)]) {
      if (r == rank) layout.place = static_cast<int>(layout.neighbors.size());
      layout.neighbors.push_back(r);
    }
    ranks_of.resize(std::max(ranks_of.size(), static_cast<std::size_t>(hosts[at]) + 1));
    ++ranks_of[static_cast<std::size_t>(hosts[at])];
    consecutive = consecutive && (r == 0 || hosts[at] == hosts[at - 1] || hosts[at] == hosts[at - 1] + 1);
  }
  layout.hosts = static_cast<int>(ranks_of.size());
  const auto unequal = [&](int ranks) { return ranks != ranks_of.front(); };
  layout.regular = layout.hosts > 1 && consecutive && std::ranges::none_of(ranks_of, unequal);
  layout.subtrees = layout.regular && std::has_single_bit(static_cast<unsigned>(ranks_of.front()));
  return layout;
}

int MpiEnvironment::host_count() const { return 1 + *std::ranges::max_element(hosts_); }

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

std::string explain_order_of_ranks(const std::vector<int>& hosts) {
  const HostLayout layout = host_layout(hosts, 0);
  const bool alone = layout.hosts == static_cast<int>(hosts.size());
  if (layout.hosts == 1 || layout.regular || alone) return {};
  if (std::ranges::is_sorted(hosts))
    return "the hosts have unequal numbers of ranks: each rank exchanges messages with ranks of other hosts, where one "
           "a core would share the work; equal numbers (mpirun --map-by ppr:N:node) are faster";
  return "ranks that follow one another are on different hosts (mpirun --map-by node): each exchanges messages with "
         "all "
         "others; host by host (--map-by slot, mpirun's own choice) they share memory first";
}

std::string explain_short_timeout(int hosts, Seconds timeout,
                                  const std::function<const char*(const char*)>& environment) {
  if (hosts == 1 || environment("OMPI_COMM_WORLD_SIZE") == nullptr) return {};  // not mpirun's
  const auto of = [&](const char* name, double fallback) {
    const char* const value = environment(name);
    char* end = nullptr;
    const double number = value == nullptr ? fallback : std::strtod(value, &end);
    return value == nullptr || end != value ? number : fallback;
  };
  const double keepalive = of("OMPI_MCA_oob_tcp_keepalive_time", 300) +
                           of("OMPI_MCA_oob_tcp_keepalive_intvl", 20) * of("OMPI_MCA_oob_tcp_keepalive_probes", 9);
  if (keepalive < timeout.count()) return {};
  return fmt::format(
      "comm.timeout_s is {} s, mpirun notices a host that has gone after {} s: should one go, the job is told to end, "
      "but "
      "mpirun may wait for that host for many minutes; start it with --mca oob_tcp_keepalive_time {:.0f} --mca "
      "oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3",
      timeout.count(), keepalive, std::max(1.0, timeout.count() / 2 - 3));
}

MpiEnvironment::MpiEnvironment() : exceptions_at_birth_(std::uncaught_exceptions()) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) {
    int provided = 0;
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
      fail(ErrorKind::environment, "MPI could not be started; run `mpirun -n 1 hostname` to see its own message");
    finalize_ = true;
    if (provided < MPI_THREAD_FUNNELED) {
      MPI_Finalize();
      fail(ErrorKind::environment, "this MPI library was built without thread support; MPI_THREAD_FUNNELED is needed");
    }
  }
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  threads_may_take_turns_ = level >= MPI_THREAD_SERIALIZED;
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
  hosts_ = number_hosts(host, world_size_, world_rank_);
  MPI_Comm_free(&host);
}

MpiEnvironment::~MpiEnvironment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // While an exception unwinds the others are somewhere else and MPI_Finalize would wait for them forever.
  if (finalize_ && finalized == 0 && std::uncaught_exceptions() == exceptions_at_birth_) MPI_Finalize();
}

}  // namespace lockstep::comm
