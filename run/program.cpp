// A program of one's own as a rank of a job: launch() and initialize().
#include <optional>

#include "core/error.hpp"
#include "run/launch.hpp"
#include "run/launcher.hpp"
#include "run/stop_signals.hpp"
#include "run/training.hpp"

namespace lockstep::run {
namespace {

/// Ends the body of launch(): why has been told.
struct Refused {
  int exit_code;
};

/// Everything of the process that the training needs and that must be there until its ranks have had their last words.
struct Program {
  // Before MPI and OpenMP make threads: they inherit what is blocked.
  StopSignals signals;
  std::optional<LauncherWatch> watch;
  std::optional<job::LoadedJob> job;
  std::unique_ptr<RankProcess> process;
};

Program* current = nullptr;

}  // namespace

int launch(const std::function<void()>& body) {
  require(current == nullptr, "launch: inside of launch");
  secure_standard_streams();
  Program program;
  if (under_launcher()) program.watch.emplace();
  current = &program;
  int code = 0;
  try {
    body();
  } catch (const Refused& refused) {
    code = refused.exit_code;
  } catch (...) {
    const Failure failure = failure_of(std::current_exception());
    if (!program.process) print_failure(failure);
    code = program.process ? program.process->end(failure) : exit_code(failure.kind);
  }
  current = nullptr;
  return code;
}

Training initialize(nn::Model& model, const std::string& job_file, TrainingOptions options,
                    const std::vector<std::string>& overrides) {
  require(current != nullptr, "initialize: outside of launch(); write main as `return lockstep::launch(train);`");
  require(current->process == nullptr, "initialize: called twice; a program has one training");
  const Start start = start_with([&] { return job::load_job(job_file, overrides); });
  Joined joined = join_ranks(start);
  if (!joined.process) throw Refused{joined.exit_code};
  current->job = start.job;
  current->process = std::move(joined.process);
  return {model, *current->job, current->process->context(), options};
}

}  // namespace lockstep::run
