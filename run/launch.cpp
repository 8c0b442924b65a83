#include "run/launch.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "comm/local.hpp"
#include "comm/mpi.hpp"
#include "comm/nccl.hpp"
#include "comm/nccl_loader.hpp"
#include "comm/run_ranks.hpp"
#include "comm/staged.hpp"
#include "comm/watchdog.hpp"
#include "core/error.hpp"
#include "core/host.hpp"
#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/affinity.hpp"
#include "run/agreement.hpp"
#include "run/launcher.hpp"
#include "run/run_folder.hpp"
#include "run/stop_signals.hpp"

namespace lockstep::run {
namespace {

using Body = std::function<void(RankContext&)>;

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
int end_together(comm::Communicator& comm, const Failure& failure, const std::vector<std::string>& hosts) {
  const std::string& host = hosts[static_cast<std::size_t>(comm.rank())];
  if (failure.kind == ErrorKind::hang) return end_all(comm, failure, host);  // one of them does not answer
  try {
    const std::optional<Failure> told = gather_failures(comm, failure, hosts);
    if (comm.rank() == 0) {
      log::set_rank(0, 1);
      print_failure(*told);
    }
    return exit_code(told->kind);
  } catch (const std::exception&) {
    return end_all(comm, failure, host);  // the others did not meet it
  }
}

RankContext single_context(const job::JobConfig& job, const SelectedPlace& place, comm::Communicator& comm) {
  const int threads = threads_for(job, widen_and_share(0, 1).share);
  return {.comm = comm,
          .place = place.with_threads(threads),
          .world_source = "no launcher",
          .summary = summary_of(comm, threads, "", place)};
}

int run_single(const Start& start, const Body& body, const PlaceOf& place_of) {
  if (start.failure) return tell_start_failure(*start.failure);
  try {
    const SelectedPlace place = place_of(start.job->config, {});
    const auto comm = comm::make_single(place.device.get());
    RankContext context = single_context(start.job->config, place, *comm);
    body(context);
    return 0;
  } catch (...) {
    return tell(failure_of(std::current_exception()));
  }
}

comm::Watchdog::Options watch_options(const Start& start) {
  // Before the ranks have agreed nothing is written.
  if (!start.job) return {.folder = {}, .host = host_name()};
  return {.warn = comm::Seconds(start.job->config.comm.warn_s),
          .abort = comm::Seconds(start.job->config.comm.timeout_s),
          .start = comm::Seconds(start.job->config.comm.start_timeout_s),
          .folder = {},
          .host = host_name()};
}

int run_local(const Start& start, const Body& body, const PlaceOf& place_of) {
  if (start.failure) return tell_start_failure(*start.failure);
  const job::JobConfig& job = start.job->config;
  const int ranks = static_cast<int>(job.comm.ranks);
  const int threads = threads_for(job, std::max(1, widen_and_share(0, 1).share / ranks));
  const auto table = std::make_shared<comm::FlightTable>(ranks);
  comm::Watchdog watchdog(table, watch_options(start));
  watchdog.use_folder(run_folder(job));
  const auto run_rank = [&](const std::shared_ptr<comm::LocalGroup>& group, int rank) {
    log::set_rank(rank, ranks);
    const SelectedPlace place = place_of(job, {.rank = rank, .ranks = ranks});
    const comm::LocalOptions options{.timeout = comm::Seconds(job.comm.timeout_s),
                                     .device = place.host_reads_memory ? place.device.get() : nullptr};
    comm::run_as_rank(group, rank, options, [&](comm::Communicator& local) {
      const auto staged = place.host_reads_memory ? nullptr : comm::make_staged(local, *place.device);
      comm::Communicator& comm = staged != nullptr ? *staged : local;
      comm::FlightTrack& track = table->track(rank);
      track.sit_down(rank, getpid(), comm::Phase::running);
      comm.record_in(&track);
      comm.check_signatures(job.comm.check_collectives);
      RankContext context{.comm = comm,
                          .place = place.with_threads(threads),
                          .world_source = "comm.ranks",
                          .summary = summary_of(comm, threads, "", place),
                          .host_ranks = ranks,
                          .process_ranks = ranks,
                          .device_ranks = place.sharing};
      body(context);
    });
  };
  try {
    comm::run_rank_threads(ranks, run_rank);
    return 0;
  } catch (...) {
    Failure failure = failure_of(std::current_exception());
    if (failure.kind == ErrorKind::hang) failure.text += watchdog.after_hang();
    return tell(failure);
  }
}

/// What every rank must have before the body may begin, and the ranks' agreement about it.
std::optional<Failure> agree(comm::Communicator& control, const Start& start, const SelectedPlace& place,
                             const std::optional<Failure>& no_place, const std::vector<std::string>& hosts) {
  if (auto failure = gather_failures(control, start.failure, hosts)) return failure;
  if (auto failure = compare_statements(control, statement_of(start.job->config, start.options))) return failure;
  if (auto failure = gather_failures(control, no_place, hosts)) return failure;
  return compare_places(control, place.text, place.device->memory(), hosts);
}

/// What MPI ranks work with: MPI for host memory, and what brings device memory there.
struct RankComm {
  std::unique_ptr<comm::Communicator> host, device;
  [[nodiscard]] comm::Communicator& get() const { return device != nullptr ? *device : *host; }
};

bool by_nccl(const job::JobConfig& job, const SelectedPlace& place, int ranks) {
  return ranks > 1 && !place.host_reads_memory && (job.comm.backend == "auto" || job.comm.backend == "nccl");
}

comm::IntraHost intra_host_of(const job::JobConfig& job) {
  if (job.comm.intra_host == "mpi") return comm::IntraHost::messages;
  return job.comm.intra_host == "shared" ? comm::IntraHost::shared : comm::IntraHost::automatic;
}

DType wire_of(const job::JobConfig& job) {
  const std::string wire = job.wire();
  return wire == "bf16" ? DType::bf16 : wire == "fp16" ? DType::f16 : DType::f32;
}

RankComm make_rank_comm(const job::JobConfig& job, std::unique_ptr<comm::Communicator> host,
                        const SelectedPlace& place) {
  RankComm ranks{.host = std::move(host), .device = nullptr};
  if (place.device->memory() == Memory::host) return ranks;
  if (by_nccl(job, place, ranks.host->size()))
    ranks.device = comm::make_nccl(std::move(ranks.host), *place.device, comm::load_nccl(),
                                   {.timeout = comm::Seconds(job.comm.timeout_s),
                                    .library_order = job.run.determinism == "fast",
                                    .share_gpu = job.comm.share_gpu,
                                    .kernels = place.kernels});
  else if (ranks.host->size() == 1)
    ranks.device = comm::make_single(place.device.get());
  else
    ranks.device = comm::make_staged(*ranks.host, *place.device);
  return ranks;
}

/// Several processes that do not know of each other would share the run's folder.
void require_known_launcher() {
  const std::string why = explain_unknown_launcher([](const char* name) { return std::getenv(name); });
  if (!why.empty()) throw Error(ErrorKind::environment, why);
}

/// This process as a rank of MPI, from the ranks' agreement to their last words.
class MpiRank {
 public:
  /// Collective.
  MpiRank(const Start& start, const PlaceOf& place_of)
      : table_(comm::FlightTable::of_process(launcher_rank())), watchdog_(table_, watch_options(start)) {
    mpi_.emplace();
    watchdog_.enter(comm::Phase::connecting);
    begin(start, place_of);
  }
  MpiRank(const MpiRank&) = delete;
  MpiRank& operator=(const MpiRank&) = delete;
  ~MpiRank() {
    leave();
    ending_.reset();
    mpi_.reset();
    watchdog_.enter(comm::Phase::gone);
  }

  /// The body is done: what follows, to MPI_Finalize, is the library's own collectives, which the watchdog looks after.
  void leave() { watchdog_.enter(comm::Phase::ending); }

  /// Collective, once MPI is up.
  void begin(const Start& start, const PlaceOf& place_of) {
    if (mpi_->world_size() == 1) require_known_launcher();
    const auto control = comm::make_mpi(*mpi_, {.timeout = comm::Seconds(60), .oversubscribed = true});
    std::optional<Failure> no_place;
    try {
      if (start.job) {
        place_ = place_of(start.job->config, {.rank = mpi_->host_rank(), .ranks = mpi_->host_size()});
        if (by_nccl(start.job->config, place_, mpi_->world_size())) (void)comm::load_nccl();
      }
    } catch (...) {
      no_place = failure_of(std::current_exception());
    }
    if (const auto failure = agree(*control, start, place_, no_place, mpi_->host_names())) {
      if (control->rank() == 0) (void)(start.failure ? tell_start_failure(*failure) : tell(*failure));
      refused_ = exit_code(failure->kind);
      return;
    }
    job_ = start.job->config;
    watchdog_.use_folder(run_folder(job_));
    const Cpus cpus = widen_and_share(mpi_->host_rank(), mpi_->host_size());
    threads_ = threads_for(job_, cpus.share);
    oversubscribed_ = user_bound() ? mpi_->oversubscribed(threads_) : mpi_->host_size() * threads_ > cpus.host;
    ending_ = comm::make_mpi(*mpi_, {.timeout = last_words(job_), .oversubscribed = true});
    log::set_rank(mpi_->world_rank(), mpi_->world_size());
    log::debug("pid {}, {} CPUs allowed, {} threads, {}", getpid(), allowed_cpus(), threads_, to_string(current_isa()));
  }

  /// The exit code, where this rank or another one cannot take part and has been told why.
  [[nodiscard]] const std::optional<int>& refused() const { return refused_; }

  /// Collective. What it throws is for end().
  [[nodiscard]] RankComm make_comm() const {
    const bool nccl = by_nccl(job_, place_, mpi_->world_size());
    const comm::MpiOptions options{.timeout = comm::Seconds(job_.comm.timeout_s),
                                   .oversubscribed = oversubscribed_,
                                   .library_order = job_.run.determinism == "fast",
                                   .intra_host = nccl ? comm::IntraHost::messages : intra_host_of(job_),
                                   .wire = wire_of(job_),
                                   .progress_thread = !nccl && job_.comm.progress_thread};
    std::string why_not;
    RankComm ranks = make_rank_comm(job_, comm::make_mpi(*mpi_, options, &why_not), place_);
    if (!why_not.empty() && mpi_->world_rank() == 0)
      log::warning("ranks of one host exchange messages, which is slower than the memory they cannot share: {}",
                   why_not);
    if (mpi_->world_rank() == 0) warn_of_hosts(nccl);
    ranks.get().record_in(&table_->own());
    ranks.get().check_signatures(job_.comm.check_collectives);
    table_->own().enter(comm::Phase::running);
    return ranks;
  }
  [[nodiscard]] RankContext context(comm::Communicator& comm) const {
    const std::string where = fmt::format(" on {}", counted(mpi_->host_count(), "host"));
    return {.comm = comm,
            .place = place_.with_threads(threads_),
            .world_source = "from MPI",
            .summary = summary_of(comm, threads_, where, place_),
            .host_ranks = mpi_->host_size(),
            .device_ranks = place_.sharing};
  }
  /// The ranks' last words.
  [[nodiscard]] int end(Failure failure) {
    if (failure.kind == ErrorKind::hang) failure.text += watchdog_.after_hang();
    return end_together(*ending_, failure, mpi_->host_names());
  }

 private:
  void warn_of_hosts(bool nccl) const {
    const std::string order = comm::explain_order_of_ranks(mpi_->hosts());
    if (!nccl && job_.comm.intra_host != "mpi" && !order.empty()) log::warning("{}", order);
    const std::string timeout = comm::explain_short_timeout(mpi_->host_count(), comm::Seconds(job_.comm.timeout_s),
                                                            [](const char* name) { return std::getenv(name); });
    if (!timeout.empty()) log::warning("{}", timeout);
  }

  std::shared_ptr<comm::FlightTable> table_;
  comm::Watchdog watchdog_;
  std::optional<comm::MpiEnvironment> mpi_;
  SelectedPlace place_;
  job::JobConfig job_;
  int threads_ = 1;
  bool oversubscribed_ = false;
  std::unique_ptr<comm::Communicator> ending_;
  std::optional<int> refused_;
};

int run_mpi(const Start& start, const Body& body, const PlaceOf& place_of) {
  MpiRank rank(start, place_of);
  if (rank.refused()) return *rank.refused();
  std::optional<Failure> failure;
  try {
    const RankComm comm = rank.make_comm();
    RankContext context = rank.context(comm.get());
    body(context);
    rank.leave();
  } catch (...) {
    failure = failure_of(std::current_exception());
  }
  return failure ? rank.end(*failure) : 0;
}

// The same for a program that has no body to give.

class SingleProcess final : public RankProcess {
 public:
  explicit SingleProcess(const job::JobConfig& job)
      : place_(select_own_place(job, {})),
        comm_(comm::make_single(place_.device.get())),
        context_(single_context(job, place_, *comm_)) {}
  [[nodiscard]] RankContext& context() override { return context_; }
  [[nodiscard]] int end(const Failure& failure) override { return tell(failure); }

 private:
  SelectedPlace place_;
  std::unique_ptr<comm::Communicator> comm_;
  RankContext context_;
};

class MpiProcess final : public RankProcess {
 public:
  explicit MpiProcess(const Start& start) : rank_(start, select_own_place) {}
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;
  ~MpiProcess() override { rank_.leave(); }
  [[nodiscard]] const std::optional<int>& refused() const { return rank_.refused(); }
  void connect() {
    comm_ = rank_.make_comm();
    context_.emplace(rank_.context(comm_.get()));
  }
  [[nodiscard]] RankContext& context() override { return *context_; }
  [[nodiscard]] int end(const Failure& failure) override { return rank_.end(failure); }

 private:
  MpiRank rank_;
  RankComm comm_;
  std::optional<RankContext> context_;
};

Joined join_single(const Start& start) {
  if (start.failure) return {nullptr, tell_start_failure(*start.failure)};
  try {
    return {std::make_unique<SingleProcess>(start.job->config)};
  } catch (...) {
    return {nullptr, tell(failure_of(std::current_exception()))};
  }
}

Joined join_mpi(const Start& start) {
  auto process = std::make_unique<MpiProcess>(start);
  if (process->refused()) return {nullptr, *process->refused()};
  std::optional<Failure> failure;
  try {
    process->connect();
  } catch (...) {
    failure = failure_of(std::current_exception());
  }
  if (failure) return {nullptr, process->end(*failure)};
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
    if (mpi) return run_mpi(start, body, place_of);
    return run_single(start, body, place_of);
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
    return mpi ? join_mpi(start) : join_single(start);
  } catch (...) {
    return {nullptr, tell_alone(failure_of(std::current_exception()))};
  }
}

}  // namespace lockstep::run
