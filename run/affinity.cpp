#include "run/affinity.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace lockstep::run {
namespace {

/// Set when a user chose a binding; a default binding leaves them unset.
constexpr const char* binding_variables[] = {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_mapping_policy",
                                             "PRTE_MCA_hwloc_default_binding_policy", "SLURM_CPU_BIND",
                                             "HYDRA_BINDING"};

int allowed_cpus(cpu_set_t& set) {
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

int allowed_cpus() {
  cpu_set_t set;
  return allowed_cpus(set);
}

bool user_bound() {
  return std::any_of(std::begin(binding_variables), std::end(binding_variables),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

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

}  // namespace lockstep::run
