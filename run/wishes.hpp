#pragma once

#include <chrono>
#include <string>

#include "engine/engine.hpp"
#include "run/progress.hpp"
#include "run/stop_signals.hpp"

namespace lockstep::run {

/// What somebody outside wants of a run that is in its loop: signals to any rank, and files in the run's folder for
/// systems where no signal gets through:
///
///   touch RUN/SAVE    save and go on, as SIGUSR1
///   touch RUN/STOP    save and finish, as SIGUSR2, SIGTERM, SIGINT and SIGHUP
///
/// Rank 0 looks for the files before each step, but no more often than every half second, and removes what it finds
/// before it acts, so that the next start does not meet the same wish. A file that cannot be removed is not acted on,
/// once and for all, and said.
class Wishes {
 public:
  Wishes(std::string folder, bool root) : folder_(std::move(folder)), root_(root) {}

  /// Before each step: tells the engine, which tells all ranks.
  void pass_on(engine::Engine& engine);

  /// As the state is saved: wishes to save that came before are met.
  void met() { (void)signals_.take_save(); }
  /// After each save, which took so many seconds. Says once if the launcher's grace after SIGTERM is shorter.
  void saved(double seconds, Progress& progress);

 private:
  using Clock = std::chrono::steady_clock;
  /// Whether the file was there and is gone.
  [[nodiscard]] bool take(const char* name);

  std::string folder_;
  bool root_;
  StopSignals::Graceful signals_;
  Clock::time_point last_look_{};
  bool cannot_remove_ = false;
  bool grace_told_ = false;
};

/// How long Open MPI's mpirun waits after SIGTERM before it kills the ranks, in seconds: `set`, the value of
/// OMPI_MCA_odls_base_sigkill_timeout that mpirun passes to its ranks, or 1 where it is null or no number.
[[nodiscard]] double mpirun_grace(const char* set);

}  // namespace lockstep::run
