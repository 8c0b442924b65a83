#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "job/job.hpp"
#include "run/child_job.hpp"

namespace lockstep::run {

/// When a kill struck, as the run's folder shows it afterwards.
enum class KillMoment : std::uint8_t {
  starting,  ///< the attempt had not begun to write metrics
  training,
  saving,  ///< a checkpoint was on its way: its temporary folder was left behind
};

/// One kill of a rehearsal.
struct Kill {
  KillMoment moment = KillMoment::training;
  bool of_launcher = false;  ///< mpirun, else one of its ranks
};

struct RehearsalOptions {
  std::string job;                     ///< path of the job file
  std::vector<std::string> overrides;  ///< as given to --set
  std::string folder;                  ///< gets both runs; must not exist. Empty: <output_dir>/<name>.drill
  std::int64_t kills = 20;
  int ranks = 2;
  std::uint64_t seed = 1;
  std::function<void(const std::string&)> say;  ///< lines of progress, without the line end
};

/// What a rehearsal has measured and found.
struct Rehearsal {
  std::int64_t steps = 0;
  double step_seconds = 0;           ///< median of the undisturbed run
  std::vector<double> save_seconds;  ///< of its saves, as long as their temporary folders were to be seen
  std::vector<Kill> kills;
  std::vector<std::int64_t> lost_steps;  ///< done, killed, and done again: an entry each time that the run went on
  std::vector<double> recovery_seconds;  ///< from the last kill to the first step after it
  std::int64_t completed = 0;    ///< disturbed runs that came to their ends before they were struck, and were right
  ChildJob::Leftovers swept;     ///< after killed jobs
  std::int64_t equal_lines = 0;  ///< of the metrics
  std::vector<std::string> failures;  ///< sentences; none: passed
  std::string folder;                 ///< where the runs lie; removed if passed
  [[nodiscard]] bool passed() const { return failures.empty(); }
};

/// Rehearses crashes of a job on this host and its file system: runs it undisturbed, then again with SIGKILL to a
/// random rank, or to mpirun, at random moments, going on each time from the newest checkpoint as `--resume auto` does;
/// at the end metrics (but for the clock) and parameters must be those of the undisturbed run bit for bit, and no
/// process, temporary folder, lock or shared memory may be left.
///
/// LOCKSTEP_FAULT of the environment reaches the disturbed attempts alone, LOCKSTEP_DRILL none.
///
/// ErrorKind::config for a job that cannot be rehearsed, with what to change; ErrorKind::environment without mpirun; of
/// the undisturbed run's own kind where that fails. A job that fails after a kill is a failure of the rehearsal.
[[nodiscard]] Rehearsal rehearse(const RehearsalOptions& options);

/// Steps that a job must have at least for its kills to fall within it: `every` steps between checkpoints, each of so
/// many seconds.
[[nodiscard]] std::int64_t steps_for_rehearsal(std::int64_t every, double step_seconds);

/// The interval between checkpoints that loses least time: sqrt(2 x save x mtbf), all in seconds.
/// Source: Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
[[nodiscard]] double checkpoint_interval(double save_seconds, double mtbf_seconds);

/// The end of the report: kills by kind, steps lost, recovery, recommended intervals, PASS or FAIL.
[[nodiscard]] std::string to_text(const Rehearsal& rehearsal);

}  // namespace lockstep::run
