#pragma once

#include <functional>
#include <string>

#include "comm/communicator.hpp"
#include "engine/engine.hpp"
#include "job/job.hpp"

namespace lockstep::run {

/// What one rank gets to work with.
struct RankContext {
  comm::Communicator& comm;
  engine::Place place;
  std::string world_source;  ///< where the number of ranks comes from: "from MPI", "comm.ranks", "no launcher"
  std::string summary;       ///< "2 ranks (mpi) x 1 thread on 1 host, cpu avx512"
};

/// Chooses backend, device and threads from the job and the launcher, and runs `body` on every rank that belongs to
/// this process. Returns when all of them are done.
///
/// comm.backend auto: MPI under a launcher (mpirun, srun), else one rank. run.threads auto: the host's allowed CPUs
/// divided among its ranks. A launcher's default binding (one core a rank) is widened to that share; a binding the user
/// asked for is kept.
/// An exception of `body` ends the whole job: it is printed with its rank and every other rank's waits fail. Returns
/// the exit code for the process.
[[nodiscard]] int run_on_ranks(const job::JobConfig& job, const std::function<void(RankContext&)>& body);

/// Whether this process was started by a launcher as one of several or as one of one ranks.
[[nodiscard]] bool under_launcher();
/// This process's rank as the launcher's environment says, 0 without one: for messages before MPI is up.
[[nodiscard]] int launcher_rank();

}  // namespace lockstep::run
