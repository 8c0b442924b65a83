#include "run/launch.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "comm/local.hpp"
#include "comm/mpi.hpp"
#include "comm/run_ranks.hpp"
#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/affinity.hpp"
#include "run/agreement.hpp"
#include "run/launcher.hpp"
#include "run/stop_signals.hpp"

namespace lockstep::run {
namespace {

using Body = std::function<void(RankContext&)>;
using PlaceOf = std::function<SelectedPlace(const job::JobConfig&)>;

/// For ranks to say what ended them: one that met something alone waits so long for the others, then ends them. Below
/// the job's own deadline, or a rank that waits for this one would take it for hanging before it has spoken.
comm::Seconds last_words(const job::JobConfig& job) { return comm::Seconds(std::min(5.0, job.comm.timeout_s / 2)); }

int threads_for(const job::JobConfig& job, int share) {
  return job.run.threads ? static_cast<int>(*job.run.threads) : share;
}

std::string summary_of(const comm::Communicator& comm, int threads, const std::string& where,
                       const SelectedPlace& place) {
  return fmt::format("{} ({}) x {}{}, {}", counted(comm.size(), "rank"), comm.name(), counted(threads, "thread"), where,
                     place.text);
}

/// A start failure has its own form already: "job.yaml:3:7: error: ...".
int tell_start_failure(const Failure& failure) {
  log::write(log::Level::error, failure.text, log::Form::bare);
  return exit_code(failure.kind);
}

int tell(const Failure& failure) {
  print_failure(failure);
  return exit_code(failure.kind);
}

/// Ends this rank and with it the job.
int end_all(comm::Communicator& comm, const Failure& failure, const std::string& host) {
  log::set_rank(comm.rank(), comm.size(), host);
  print_failure(failure);
  comm.abort("", exit_code(failure.kind));
  return exit_code(failure.kind);
}

/// The ranks' last words after `failure` in the body.
int end_together(comm::Communicator& comm, comm::Communicator& control, const Failure& failure,
                 const std::vector<std::string>& hosts) {
  const std::string& host = hosts[static_cast<std::size_t>(comm.rank())];
  if (failure.kind == ErrorKind::hang) return end_all(comm, failure, host);  // one of them does not answer
  try {
    const std::optional<Failure> told = gather_failures(control, failure, hosts);
    if (comm.rank() == 0) {
      log::set_rank(0, 1);
      print_failure(*told);
    }
    return exit_code(told->kind);
  } catch (const std::exception&) {
    return end_all(comm, failure, host);  // the others did not meet it
  }
}

int run_body(RankProcess& process, const Body& body) {
  std::optional<Failure> failure;
  try {
    body(process.context());
  } catch (...) {
    failure = failure_of(std::current_exception());
  }
  return failure ? process.end(*failure) : 0;
}

class SingleRank final : public RankProcess {
 public:
  SingleRank(const job::JobConfig& job, const PlaceOf& place_of)
      : place_(place_of(job)), comm_(comm::make_single(place_.device.get())) {
    const int threads = threads_for(job, widen_and_share(0, 1).share);
    context_.emplace(RankContext{.comm = *comm_,
                                 .place = place_.with_threads(threads),
                                 .world_source = "no launcher",
                                 .summary = summary_of(*comm_, threads, "", place_)});
  }
  [[nodiscard]] RankContext& context() override { return *context_; }
  [[nodiscard]] int end(const Failure& failure) override { return tell(failure); }

 private:
  SelectedPlace place_;
  std::unique_ptr<comm::Communicator> comm_;
  std::optional<RankContext> context_;
};

Joined join_single(const Start& start, const PlaceOf& place_of) {
  if (start.failure) return {nullptr, tell_start_failure(*start.failure)};
  try {
    return {std::make_unique<SingleRank>(start.job->config, place_of)};
  } catch (...) {
    return {nullptr, tell(failure_of(std::current_exception()))};
  }
}

int run_local(const Start& start, const Body& body, const PlaceOf& place_of) {
  if (start.failure) return tell_start_failure(*start.failure);
  const job::JobConfig& job = start.job->config;
  const int ranks = static_cast<int>(job.comm.ranks);
  const int threads = threads_for(job, std::max(1, widen_and_share(0, 1).share / ranks));
  const auto run_rank = [&](const std::shared_ptr<comm::LocalGroup>& group, int rank) {
    log::set_rank(rank, ranks);
    const SelectedPlace place = place_of(job);
    const comm::LocalOptions options{.timeout = comm::Seconds(job.comm.timeout_s), .device = place.device.get()};
    comm::run_as_rank(group, rank, options, [&](comm::Communicator& comm) {
      RankContext context{.comm = comm,
                          .place = place.with_threads(threads),
                          .world_source = "comm.ranks",
                          .summary = summary_of(comm, threads, "", place),
                          .host_ranks = ranks,
                          .process_ranks = ranks};
      body(context);
    });
  };
  try {
    comm::run_rank_threads(ranks, run_rank);
    return 0;
  } catch (...) {
    return tell(failure_of(std::current_exception()));
  }
}

/// What every rank must have before the body may begin, and the ranks' agreement about it.
std::optional<Failure> agree(comm::Communicator& control, const Start& start, const std::optional<Failure>& no_place,
                             const std::vector<std::string>& hosts) {
  if (auto failure = gather_failures(control, start.failure, hosts)) return failure;
  if (auto failure = compare_statements(control, statement_of(start.job->config, start.options))) return failure;
  return gather_failures(control, no_place, hosts);
}

/// Several processes that do not know of each other would share the run's folder.
void require_known_launcher() {
  const std::string why = explain_unknown_launcher([](const char* name) { return std::getenv(name); });
  if (!why.empty()) throw Error(ErrorKind::environment, why);
}

class MpiRank final : public RankProcess {
 public:
  /// Collective. refused() says why this rank, or another one, cannot take part.
  MpiRank(const Start& start, const PlaceOf& place_of) {
    if (mpi_.world_size() == 1) require_known_launcher();
    const auto control = comm::make_mpi(mpi_, {.timeout = comm::Seconds(60), .oversubscribed = true});
    std::optional<Failure> no_place;
    try {
      if (start.job) place_ = place_of(start.job->config);
    } catch (...) {
      no_place = failure_of(std::current_exception());
    }
    if (const auto failure = agree(*control, start, no_place, mpi_.host_names())) {
      if (control->rank() == 0) (void)(start.failure ? tell_start_failure(*failure) : tell(*failure));
      refused_ = exit_code(failure->kind);
      return;
    }
    join(start.job->config);
  }
  [[nodiscard]] std::optional<int> refused() const { return refused_; }
  [[nodiscard]] RankContext& context() override { return *context_; }
  [[nodiscard]] int end(const Failure& failure) override {
    return end_together(*comm_, *ending_, failure, mpi_.host_names());
  }

 private:
  void join(const job::JobConfig& job) {
    const Cpus cpus = widen_and_share(mpi_.host_rank(), mpi_.host_size());
    const int threads = threads_for(job, cpus.share);
    const bool oversubscribed = user_bound() ? mpi_.oversubscribed(threads) : mpi_.host_size() * threads > cpus.host;
    comm_ = comm::make_mpi(mpi_, {.timeout = comm::Seconds(job.comm.timeout_s),
                                  .oversubscribed = oversubscribed,
                                  .library_order = job.run.determinism == "fast"});
    ending_ = comm::make_mpi(mpi_, {.timeout = last_words(job), .oversubscribed = true});
    log::set_rank(comm_->rank(), comm_->size());
    log::debug("pid {}, {} CPUs allowed, {} threads, {}", getpid(), allowed_cpus(), threads, to_string(current_isa()));
    const std::set<std::string> hosts(mpi_.host_names().begin(), mpi_.host_names().end());
    const std::string on_hosts = fmt::format(" on {}", counted(static_cast<std::int64_t>(hosts.size()), "host"));
    context_.emplace(RankContext{.comm = *comm_,
                                 .place = place_.with_threads(threads),
                                 .world_source = "from MPI",
                                 .summary = summary_of(*comm_, threads, on_hosts, place_),
                                 .host_ranks = mpi_.host_size()});
  }

  comm::MpiEnvironment mpi_;
  SelectedPlace place_;
  std::unique_ptr<comm::Communicator> comm_;
  std::unique_ptr<comm::Communicator> ending_;  ///< for the last words alone
  std::optional<RankContext> context_;
  std::optional<int> refused_;
};

Joined join_mpi(const Start& start, const PlaceOf& place_of) {
  auto process = std::make_unique<MpiRank>(start, place_of);
  if (const auto code = process->refused()) return {nullptr, *code};
  return {std::move(process)};
}

constexpr const char* nested_ranks_text =
    "comm.backend: local makes its ranks in one process; start it without mpirun, or leave comm.backend and comm.ranks "
    "out";

/// Threads as ranks, inside one of several processes: each would train by itself.
Start refusing_nested_ranks(const Start& start) {
  Start refused = start;
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (start.job && start.job->config.comm.backend == "local" && size != nullptr && std::atoi(size) > 1)
    refused.failure = Failure{ErrorKind::config, nested_ranks_text};
  return refused;
}

/// MPI itself, or a launcher that it does not know: there is nothing to ask the others with, and no telling whether
/// they are well. Whoever meets it says so.
int tell_alone(const Failure& failure) {
  if (launcher_rank() > 0) log::set_rank(launcher_rank(), launcher_rank() + 1);
  return tell(failure);
}

}  // namespace

void refuse_nested_ranks() { throw Error(ErrorKind::config, nested_ranks_text); }

Start start_with(const std::function<job::LoadedJob()>& load, std::vector<std::string> options) {
  Start start{.job = {}, .options = std::move(options), .failure = {}};
  try {
    start.job = load();
  } catch (...) {
    start.failure = failure_of(std::current_exception());
  }
  return start;
}

int run_on_ranks(const Start& given, const Body& body, const PlaceOf& place_of) {
  // Before MPI and OpenMP make threads: they inherit what is blocked.
  const StopSignals signals;
  const bool launcher = under_launcher();
  std::optional<LauncherWatch> watch;
  if (launcher) watch.emplace();
  const Start start = refusing_nested_ranks(given);
  const std::string backend = start.job ? start.job->config.comm.backend : "auto";
  try {
    const bool mpi = launcher || backend == "mpi";
    if (!mpi) require_known_launcher();
    if (!start.failure && (backend == "local" || (!launcher && backend == "auto" && start.job->config.comm.ranks > 1)))
      return run_local(start, body, place_of);
    const Joined joined = mpi ? join_mpi(start, place_of) : join_single(start, place_of);
    return joined.process ? run_body(*joined.process, body) : joined.exit_code;
  } catch (...) {
    return tell_alone(failure_of(std::current_exception()));
  }
}

Joined join_ranks(const Start& given) {
  Start start = given;
  const std::string backend = start.job ? start.job->config.comm.backend : "auto";
  if (start.job && (backend == "local" || start.job->config.comm.ranks > 1))
    start.failure = Failure{ErrorKind::config,
                            "comm.backend local and comm.ranks are for the program lockstep, which makes its ranks as "
                            "threads: remove them and start this program with mpirun -n N"};
  try {
    const bool mpi = under_launcher() || backend == "mpi";
    if (!mpi) require_known_launcher();
    return mpi ? join_mpi(start, select_place) : join_single(start, select_place);
  } catch (...) {
    return {nullptr, tell_alone(failure_of(std::current_exception()))};
  }
}

}  // namespace lockstep::run
