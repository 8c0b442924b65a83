#pragma once

namespace lockstep::run {

/// CPUs of one host, as far as this process may know.
struct Cpus {
  int share = 1;  ///< of this rank
  int host = 1;   ///< of all ranks of this host; with a user's binding only what this rank may use is known
};

/// CPUs that this thread may run on.
[[nodiscard]] int allowed_cpus();

/// Whether the user chose a binding, which is then kept; a launcher's default one leaves no trace.
[[nodiscard]] bool user_bound();

/// Lets this process run on every CPU that its control group allows, then on its share of them: mpirun -n 1 alone would
/// leave one core of many. Ranks are counted per host.
[[nodiscard]] Cpus widen_and_share(int host_rank, int host_size);

}  // namespace lockstep::run
