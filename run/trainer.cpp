#include "run/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>

#include "core/error.hpp"
#include "core/isa.hpp"
#include "engine/evaluate.hpp"
#include "run/checkpoint.hpp"
#include "run/metrics.hpp"
#include "run/progress.hpp"
#include "run/setup.hpp"
#include "run/stop_signals.hpp"

namespace lockstep::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Rank 0: moves an existing run aside for `never`, finds the checkpoint to go on from otherwise. The answer is the
/// same on every rank.
std::string choose_checkpoint(const std::string& folder, const std::string& resume, const CheckpointStore& store,
                              comm::Communicator& comm, std::string& remark) {
  std::string path;
  if (comm.rank() == 0) {
    try {
      if (resume == "auto") {
        path = store.newest().value_or("");
      } else if (resume == "never") {
        if (fs::exists(folder) && !fs::is_empty(folder)) {
          std::string aside;
          for (int n = 1; aside.empty() || fs::exists(aside); ++n) aside = fmt::format("{}.old-{}", folder, n);
          fs::rename(folder, aside);
          remark = fmt::format("resume: never; the run that was here is now {}", aside);
        }
      } else {
        path = resume;
      }
      fs::create_directories(fs::path(folder) / "checkpoints");
    } catch (const fs::filesystem_error& error) {
      fail(ErrorKind::environment, "the run's folder {} cannot be made: {}; run.output_dir says where it lies", folder,
           error.code().message());
    }
  }
  comm.broadcast_text(path, 0);
  return path;
}

/// For tests and drills: LOCKSTEP_DRILL=desync@rank=R,step=S makes rank R evaluate a schedule that is off by one bit
/// at step S.
std::int64_t tamper_step(int rank) {
  const char* drill = std::getenv("LOCKSTEP_DRILL");
  if (drill == nullptr) return -1;
  int wanted_rank = 0;
  long long step = 0;
  if (std::sscanf(drill, "desync@rank=%d,step=%lld", &wanted_rank, &step) != 2)
    fail(ErrorKind::config, "LOCKSTEP_DRILL={}: expected desync@rank=R,step=S", drill);
  return wanted_rank == rank ? step : -1;
}

/// Where the job differs from the one that wrote the checkpoint, line by line.
std::vector<std::string> differing_lines(const std::string& before, const std::string& now) {
  const auto lines = [](const std::string& text) {
    std::vector<std::string> result;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      result.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    return result;
  };
  const std::vector<std::string> old_lines = lines(before);
  std::vector<std::string> result;
  for (const std::string& line : lines(now))
    if (std::find(old_lines.begin(), old_lines.end(), line) == old_lines.end()) result.push_back(line);
  return result;
}

job::BatchSizes batch_for(const job::JobConfig& job, const std::optional<RunState>& resumed, const RankContext& rank) {
  if (!resumed)
    return job::resolve_batch(job.train_batch_size, job.train_micro_batch_size_per_gpu, job.gradient_accumulation_steps,
                         rank.comm.size(), rank.world_source);
  // The checkpoint's batch wins: the same samples go into each step, however many ranks share them out.
  const std::int64_t train = resumed->train_batch, micro = resumed->micro_batch;
  const std::int64_t world = rank.comm.size();
  if (train % (micro * world) != 0) {
    std::string works;
    for (std::int64_t n = 1; n * micro <= train; ++n)
      if (train % (micro * n) == 0) works += (works.empty() ? "" : ", ") + std::to_string(n);
    fail(ErrorKind::checkpoint,
         "the checkpoint's train_batch_size {} in micro-batches of {} cannot be shared by {} ranks ({}); numbers of "
         "ranks that "
         "work: {}",
         train, micro, world, rank.world_source, works);
  }
  return job::resolve_batch(train, micro, train / (micro * world), world, rank.world_source);
}

class Training {
 public:
  Training(const job::JobConfig& job, const std::string& resume, RankContext& rank)
      : job_(job),
        rank_(rank),
        comm_(rank.comm),
        folder_(run_folder(job)),
        store_(make_checkpoint_store(folder_ + "/checkpoints", job.run.checkpoint.keep_last)),
        dataset_(make_dataset(job)),
        model_(make_model(job, dataset_->classes(), dataset_->features())) {
    checkpoint_ = choose_checkpoint(folder_, resume, *store_, comm_, remark_);
    require_equal_data();
    if (!checkpoint_.empty()) {
      resumed_ = store_->read_state(checkpoint_);
      require_same_data(checkpoint_, resumed_->data, *dataset_);
    }
    batch_ = batch_for(job, resumed_, rank);
  }

  TrainResult run() {
    if (resumed_ && resumed_->step.attempted >= job_.run.steps) return already_complete();
    engine::EngineOptions options = engine_options(job_, *model_, batch_);
    options.tamper_step = tamper_step(comm_.rank());
    schedule_ = options.schedule;
    engine_.emplace(*model_, comm_, rank_.place, options);
    if (resumed_) store_->load(checkpoint_, *engine_);
    const std::int64_t first = resumed_ ? resumed_->step.attempted : 0;
    print_header(first);
    if (is_root()) {
      std::ofstream(folder_ + "/job.yaml") << job::effective_yaml(job_);
      metrics_.emplace(folder_ + "/metrics.jsonl", first);
    }
    Progress progress(first, job_.run.steps, job_.print_every(), is_root());
    const StopSignals::Graceful graceful;
    const auto begin = Clock::now();
    step_began_ = begin;

    last_step_ = job_.run.steps;
    for (std::int64_t step = first; step < last_step_; ++step) {
      if (graceful.stop_asked()) engine_->request_stop();
      train_step(step);
      const std::int64_t done = step + 1;
      const bool end = done == job_.run.steps;
      const bool evaluate = job_.run.eval_every > 0 && (end || done % job_.run.eval_every == 0);
      const bool save = end || (job_.run.checkpoint.every > 0 && done % job_.run.checkpoint.every == 0);
      if (evaluate || save || done == last_step_) engine_->drain();
      record(engine_->results(), evaluate, progress);
      if (save || done == last_step_) save_checkpoint(progress);
    }
    if (state_.attempted < job_.run.steps)
      fail(ErrorKind::preempted,
           "stopped by signal after step {}; everything is saved. The same command goes on from there.",
           state_.attempted);
    TrainResult result{.steps = state_.attempted, .updates = state_.applied, .val_loss = val_loss_};
    if (is_root())
      fmt::print("done: {} steps ({} updates) in {}{}; run folder {}\n", job_.run.steps, result.updates,
                 duration_text(std::chrono::duration<double>(Clock::now() - begin).count()),
                 val_loss_ ? fmt::format(", val_loss {:.4f}", *val_loss_) : "", folder_);
    return result;
  }

 private:
  /// Each rank reads its own copy of the data; a host with another one would train on it unnoticed.
  void require_equal_data() {
    std::vector<std::uint64_t> all(static_cast<std::size_t>(comm_.size()));
    all[static_cast<std::size_t>(comm_.rank())] = dataset_->fingerprint();
    comm_.all_gather_values(std::span(all));
    for (std::size_t r = 0; r < all.size(); ++r)
      if (all[r] != all[0])
        fail(ErrorKind::desync,
             "rank {} has other data than rank 0 (fingerprints {:016x} and {:016x}); every host needs the same file", r,
             all[r], all[0]);
  }

  [[nodiscard]] bool is_root() const { return comm_.rank() == 0; }
  [[nodiscard]] bool is_text() const { return dataset_->features() == 0; }
  [[nodiscard]] std::int64_t items_per_step() const { return batch_.train * (is_text() ? sample_length(job_) : 1); }

  TrainResult already_complete() const {
    if (is_root())
      fmt::print("complete at step {}: {} (run.resume: never starts anew and keeps this run aside)\n",
                 resumed_->step.attempted, folder_);
    return {.steps = resumed_->step.attempted, .updates = resumed_->step.applied, .val_loss = {}, .was_complete = true};
  }

  void print_header(std::int64_t first) {
    if (!is_root()) return;
    const nn::Plan& plan = engine_->plan();
    fmt::print("model     {}\n", model_->describe());
    fmt::print("data      {}\n", dataset_->describe());
    fmt::print("ranks     {}\n", rank_.summary);
    fmt::print("batch     {}\n", batch_.text);
    fmt::print("numbers   {} compute, fp32 master weights and moments; {}, gradient_clipping {}\n",
               to_string(engine_->options().compute), engine_->optimizer().name(), job_.gradient_clipping);
    fmt::print("schedule  {}; first update uses lr {}\n", schedule_->type(), engine_->lr().front());
    fmt::print(
        "memory    {:.1f} MiB a rank, of it activations {:.1f} MiB; {:.2f} GFLOP a micro-batch; gradient exchange "
        "{:.1f} MiB "
        "a step in {} buckets\n",
        static_cast<double>(engine_->bytes()) / 1048576.0, static_cast<double>(plan.train_bytes) / 1048576.0,
        (plan.forward.flops + plan.backward.flops) * 1e-9,
        static_cast<double>(engine_->gradient_sync().bytes_per_step()) / 1048576.0,
        engine_->gradient_sync().bucket_count());
    fmt::print("run       {}, steps {} to {}, determinism {}\n", folder_, first + 1, job_.run.steps,
               job_.run.determinism);
    for (const std::string& warning : schedule_->warnings()) fmt::print("warning   {}\n", warning);
    if (!remark_.empty()) fmt::print("note      {}\n", remark_);
    if (resumed_) {
      fmt::print("resume    from {}: step {}, {} updates, lr {}, loss scale {}\n", checkpoint_,
                 resumed_->step.attempted, resumed_->step.applied, engine_->lr().front(), resumed_->step.scale);
      for (const std::string& line : differing_lines(resumed_->job, job::effective_yaml(job_)))
        fmt::print("          changed since: {}\n", line);
      const std::string isa(to_string(current_isa()));
      if (resumed_->world != comm_.size() || resumed_->threads != rank_.place.threads || resumed_->isa != isa)
        fmt::print(
            "          written by {} ranks x {} threads, {}; now {} x {}, {}: the same up to rounding, not to the "
            "bit\n",
            resumed_->world, resumed_->threads, resumed_->isa, comm_.size(), rank_.place.threads, isa);
    }
    std::fflush(stdout);
  }

  /// All micro-batches of this rank, then the update. Ranks take consecutive parts of the step's samples.
  void train_step(std::int64_t step) {
    const std::int64_t per_rank = batch_.micro * batch_.accumulation;
    const std::int64_t begin = step * batch_.train + comm_.rank() * per_rank;
    for (std::int64_t i = 0; i < batch_.accumulation; ++i) {
      dataset_->train_batch(begin + i * batch_.micro, batch_.micro, host_batch_);
      engine_->forward(host_batch_);
      engine_->backward();
    }
    engine_->step();
  }

  /// Writes what has finished. If a rank asked to stop, fixes the step after which all of them do: the same one,
  /// although they may see the wish at different moments.
  void record(const std::vector<StepResult>& results, bool evaluate, Progress& progress) {
    for (std::size_t i = 0; i < results.size(); ++i) {
      const StepResult& r = results[i];
      const auto now = Clock::now();
      const double seconds = std::chrono::duration<double>(now - step_began_).count();
      step_began_ = now;
      StepMetrics m{.step = r.step + 1,
                    .update = r.applied,
                    .loss = r.loss,
                    .lr = lr_at(r.skipped != 0 ? r.applied : r.applied - 1),
                    .grad_norm = r.grad_norm,
                    .loss_scale = r.scale,
                    .skipped = r.skipped != 0,
                    .items_per_s = static_cast<double>(items_per_step()) / seconds,
                    .item = is_text() ? "tokens" : "samples",
                    .step_ms = seconds * 1e3,
                    .val_loss = {}};
      if (evaluate && i + 1 == results.size()) {
        val_loss_ = engine::evaluate_all(*engine_, *dataset_);
        m.val_loss = val_loss_;
        step_began_ = Clock::now();
      }
      if (m.skipped)
        progress.note(fmt::format("step {}: non-finite gradient in {}; update skipped, loss scale {} -> {}", m.step,
                                  engine_->parameter_at(r.first_bad), r.scale, r.next_scale));
      progress.step(m);
      if (m.val_loss)
        progress.note(fmt::format("step {}: val_loss {:.4f} ({} validation samples)", m.step, *m.val_loss,
                                  dataset_->eval_samples()));
      if (metrics_) metrics_->write(m);
      if (r.stop != 0) last_step_ = std::min(last_step_, r.step + 1 + engine_->result_delay());
    }
  }

  [[nodiscard]] std::vector<double> lr_at(std::int64_t update) const {
    std::vector<sched::GroupValues> values(schedule_->groups());
    schedule_->values_at(update, values);
    std::vector<double> lr;
    for (const sched::GroupValues& value : values) lr.push_back(value.lr);
    return lr;
  }

  void save_checkpoint(Progress& progress) {
    state_ = engine_->read_state();
    if (is_root()) {
      const std::string path = store_->save(*engine_, {.step = state_,
                                                       .sample_position = state_.attempted * batch_.train,
                                                       .seed = engine_->options().seed,
                                                       .train_batch = batch_.train,
                                                       .micro_batch = batch_.micro,
                                                       .world = comm_.size(),
                                                       .threads = rank_.place.threads,
                                                       .isa = std::string(to_string(current_isa())),
                                                       .job = job::effective_yaml(job_),
                                                       .data = data_fingerprint(*dataset_)});
      progress.note("checkpoint " + path);
    }
    comm_.barrier();
    step_began_ = Clock::now();
  }

  const job::JobConfig& job_;
  RankContext& rank_;
  comm::Communicator& comm_;
  std::string folder_;
  std::unique_ptr<CheckpointStore> store_;
  std::unique_ptr<data::Dataset> dataset_;
  std::unique_ptr<nn::Model> model_;
  std::string checkpoint_;
  std::string remark_;
  std::optional<RunState> resumed_;
  job::BatchSizes batch_;
  std::shared_ptr<const sched::Schedule> schedule_;
  std::optional<engine::Engine> engine_;
  std::optional<MetricsFile> metrics_;
  data::HostBatch host_batch_;
  StepState state_;
  std::optional<double> val_loss_;
  std::int64_t last_step_ = 0;  ///< run.steps, or less once somebody asked to stop
  Clock::time_point step_began_;
};

}  // namespace

std::string run_folder(const job::JobConfig& job) { return (fs::path(job.run.output_dir) / job.run.name).string(); }

TrainResult train(const job::JobConfig& job, const std::string& resume, RankContext& rank) {
  return Training(job, resume, rank).run();
}

}  // namespace lockstep::run
