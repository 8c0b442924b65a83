#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/engine.hpp"
#include "job/job.hpp"
#include "run/errors.hpp"
#include "run/place.hpp"

namespace lockstep::run {

/// What one rank gets to work with.
struct RankContext {
  comm::Communicator& comm;
  engine::Place place;
  std::string world_source;  ///< where the number of ranks comes from: "from MPI", "comm.ranks", "no launcher"
  std::string summary;       ///< "2 ranks (mpi) x 1 thread on 1 host, cpu avx512"
  int host_ranks = 1;        ///< ranks of this host, which share its memory
  int process_ranks = 1;     ///< of them, those that are threads of this process
};

/// What this process has read before it meets the others: a job, or why there is none.
struct Start {
  std::optional<job::LoadedJob> job;
  std::vector<std::string> options;  ///< "resume: auto": what else must be equal on all ranks
  std::optional<Failure> failure;
};
/// `load` makes the job; what it throws is kept, to be told when it is known who else met it.
[[nodiscard]] Start start_with(const std::function<job::LoadedJob()>& load, std::vector<std::string> options = {});

/// Chooses device, backend and threads from the job and the launcher, and runs `body` on every rank that belongs to
/// this process. Returns when all of them are done, with the exit code for the process.
///
/// Each rank's device is made before the communicator that serves it, by `place_of`: select_place, unless a test has
/// devices of its own.
/// Before `body` the ranks compare what they start with (run/agreement.hpp).
/// comm.backend auto: MPI under a launcher (mpirun, srun), else one rank. run.threads auto: the host's allowed CPUs
/// divided among its ranks. A launcher's default binding (one core a rank) is widened to that share; a binding the user
/// asked for is kept.
/// An exception of `body` ends the whole job; run/errors.hpp says who tells of it.
[[nodiscard]] int run_on_ranks(const Start& start, const std::function<void(RankContext&)>& body,
                               const std::function<SelectedPlace(const job::JobConfig&)>& place_of = select_place);

/// This process as one rank of a job: what run_on_ranks makes around its body, for a program that has none.
class RankProcess {
 public:
  RankProcess() = default;
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  virtual ~RankProcess() = default;
  [[nodiscard]] virtual RankContext& context() = 0;
  /// Tells of `failure`, which ended this rank's work, with the other ranks or alone, and returns the exit code.
  [[nodiscard]] virtual int end(const Failure& failure) = 0;
};

/// Meets the other ranks of this process's launcher, or is alone. Where a rank cannot take part, it has been told why
/// and there is only an exit code. StopSignals, and under a launcher LauncherWatch, must be there already. Backend
/// local is refused: its ranks are threads of one process, and need a body.
struct Joined {
  std::unique_ptr<RankProcess> process;
  int exit_code = 0;
};
[[nodiscard]] Joined join_ranks(const Start& start);

/// What a job with backend local meets under mpirun -n 2: throws ErrorKind::config.
[[noreturn]] void refuse_nested_ranks();

}  // namespace lockstep::run
