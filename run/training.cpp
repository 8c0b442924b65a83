#include "run/training.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "comm/heartbeat.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "files/durable_folder.hpp"
#include "run/agreement.hpp"
#include "run/micro_batch.hpp"
#include "run/resume.hpp"
#include "run/run_state.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

/// In a checkpoint, in place of a data set's fingerprint: the data are the program's affair.
constexpr const char* own_data = "custom";

const job::LoadedJob& for_a_program(const job::LoadedJob& job) {
  if (job.config.model.type != "custom")
    fail(ErrorKind::config,
         "{}: model.type is {}, but this program brings a model of its own: say model: {{type: custom}}, or train that "
         "model with `lockstep train`",
         job.path, job.config.model.type);
  return job;
}

}  // namespace

Scheduler::Scheduler(engine::Engine& engine, std::shared_ptr<const sched::Schedule> schedule, bool managed)
    : engine_(engine), schedule_(std::move(schedule)), managed_(managed) {
  if (!managed_) set_index(0);
}

void Scheduler::step() {
  if (managed_)
    fail(ErrorKind::config,
         "scheduler.step() on a managed {} schedule: the engine steps it by itself, once for each applied update, so "
         "this would step it twice. Remove the call, or make the training with user_managed_scheduler",
         schedule_->type());
  set_index(index_ + 1);
}

std::int64_t Scheduler::index() const { return managed_ ? engine_.applied() : index_; }

void Scheduler::set_index(std::int64_t index) {
  index_ = index;
  std::vector<StepValues> values(schedule_->groups());
  schedule_->values_at(index, values);
  engine_.set_values(values);
}

namespace {
job::LoadedJob with_micro_batch(job::LoadedJob job, nn::Model& model, const RankContext& rank) {
  (void)settle_micro_batch(job, model, rank);
  return job;
}
}  // namespace

Training::Training(nn::Model& model, const job::LoadedJob& job, RankContext& rank, TrainingOptions options)
    : job_(with_micro_batch(for_a_program(job), model, rank)),
      rank_(rank),
      comm_(rank.comm),
      folder_(run_folder(job_.config)),
      batch_(batch_sizes(job_.config, rank.comm.size(), rank.world_source)),
      options_(engine_options(job_, model, batch_, rank.comm.rank(), rank.place.device->immediate(),
                              rank.comm.capabilities().shared_address_space)),
      engine_([&] {
        options_.micro_batch.length = options.length;
        if (options.user_managed_scheduler) options_.schedule = nullptr;
        options_.captured = choose_capture(job_.config, *rank_.place.device).captured;
        return std::make_unique<engine::Engine>(model, comm_, rank_.place, options_);
      }()),
      scheduler_(*engine_, job_.schedule, !options.user_managed_scheduler) {
  require_equal_parameters(comm_, *engine_);
}

void Training::together(std::string_view what, const std::function<void()>& work) {
  const auto here = [&] {
    rank_.place.device->use_here();
    work();
  };
  comm::run_with_heartbeat(comm_, what, here, comm::Seconds(std::min(1.0, job_.config.comm.timeout_s / 4)));
}

Training::~Training() {
  if (saving() && is_root() && std::uncaught_exceptions() == 0)
    log::warning("a save that begin_save() began is given up; call finish_save() before the training ends");
}

void Training::step() {
  comm_.at_step(step_count_ + 1);
  engine_->step();
  ++step_count_;
  collect();
  go_on_saving();
}

/// Steps before one that ended the run come first; it is thrown by the next call.
void Training::collect() {
  constexpr std::size_t most = 4096;
  try {
    for (std::vector<engine::FinishedStep> more = engine_->results(); !more.empty(); more = engine_->results()) {
      finished_.insert(finished_.end(), more.begin(), more.end());
      // No rank is busy with the save that is under way any more: all go on with it after the same step.
      for (const engine::FinishedStep& step : more)
        if (saving() && (step.stop & engine::Engine::still_busy) == 0 && part_over_after_ <= step.step)
          part_over_after_ = step.step + 1 + engine_->result_delay();
    }
  } catch (const Error& error) {
    // All ranks diverge in the same step, so they can still see to the end of a save; on devices each learns of it at a
    // step of its own.
    if (error.kind() == ErrorKind::diverged && engine_->result_delay() == 0) await_save();
    throw;
  }
  if (finished_.size() > most) finished_.erase(finished_.begin(), finished_.end() - most);
}

std::vector<engine::FinishedStep> Training::results() { return std::exchange(finished_, {}); }

void Training::drain() {
  engine_->drain();
  collect();
}

void Training::train_step(const data::Dataset& dataset) {
  for (const std::int64_t position : sample_positions()) {
    dataset.train_batch(position, batch_.micro, host_batch_);
    forward(host_batch_);
    backward();
  }
  step();
}

std::vector<std::int64_t> Training::sample_positions() const {
  const sum_tree::Block own = batch_.micro_batches_of(comm_.rank());
  std::vector<std::int64_t> positions;
  for (std::int64_t i = own.begin; i < own.end; ++i) positions.push_back(step_count_ * batch_.train + i * batch_.micro);
  return positions;
}

std::optional<engine::Evaluation> Training::evaluate(const data::Dataset& dataset) {
  drain();
  return engine::evaluate_all(*engine_, dataset);
}

void Training::open_store(const std::string& run_id) {
  store_.emplace(StoreOptions{.folder = folder_ + "/checkpoints",
                              .keep_last = job_.config.run.checkpoint.keep_last,
                              .keep_every = job_.config.run.checkpoint.keep_every,
                              .run_id = run_id,
                              .heartbeat = comm::Seconds(std::min(1.0, job_.config.comm.timeout_s / 4))});
}

/// Rank 0: from here on no other job changes the run's folder.
void Training::take_folder() {
  if (store_) return;
  if (!is_root()) return open_store("");
  lock_.emplace(folder_);
  open_store(lock_->run_id());
  if (lock_->effective())
    store_->clean_up();
  else
    log::warning("{}: the file system has no locks; two jobs on this run would not notice each other", folder_);
}

/// Collective, with no step in flight from here on and no save under way.
RunState Training::state_to_save(const std::string& client_state) {
  await_save();
  drain();
  const StepState state = engine_->read_state();
  together(fmt::format("saving step {}", state.attempted), [&] {
    take_folder();
    if (!is_root()) return;
    files::make_folders(folder_ + "/checkpoints");
    // The highest step is always the one that was saved last: what another run, or another way on, left above goes.
    if (const auto moved = store_->move_aside_above(state.attempted))
      log::print("what was saved after step {} ({}) is now in {}\n", state.attempted, moved->steps,
                 printable(moved->folder));
  });
  RunState run = run_state_of(*engine_, state, job_.config, batch_, rank_.place.threads);
  run.data = own_data;
  run.schedule_index = scheduler_.managed() ? 0 : scheduler_.index();
  run.client_state = client_state;
  return run;
}

std::string Training::save(const std::string& client_state) {
  const RunState state = state_to_save(client_state);
  begun_.reset();
  const Saved saved = store_->save(*engine_, state);
  if (saved.path.empty()) throw files::DiskTrouble(saved.trouble);
  if (is_root() && !saved.trouble.empty()) log::warning("{}", saved.trouble);
  return saved.path;
}

void Training::begin_save(const std::string& client_state) {
  const RunState state = state_to_save(client_state);
  begun_.reset();
  if (!job_.config.run.checkpoint.async) return end_save(store_->save(*engine_, state));
  if (!background_) background_.emplace(*store_, *engine_);
  part_over_after_ = 0;
  background_->begin(state, {});
  background_->report();
}

/// What a step's report says of this rank is fixed as its last micro-batch begins: it is told after the step before.
void Training::go_on_saving() {
  if (!saving()) return;
  if (step_count_ == part_over_after_) {
    drain();
    part_over_after_ = 0;
    if (const std::optional<Saved> saved = background_->advance()) end_save(*saved);
  }
  background_->report();
}

void Training::end_save(const Saved& saved) {
  begun_ = saved;
  if (is_root() && !saved.trouble.empty())
    log::warning("{}{}", saved.trouble, saved.path.empty() ? "; training goes on" : "");
}

/// Collective.
void Training::await_save() {
  if (!saving()) return;
  part_over_after_ = 0;
  end_save(background_->finish());
  background_->report();
}

std::optional<std::string> Training::finish_save() {
  await_save();
  const std::optional<Saved> saved = std::exchange(begun_, std::nullopt);
  if (!saved) return std::nullopt;
  if (saved->path.empty()) throw files::DiskTrouble(saved->trouble);
  return saved->path;
}

std::optional<LoadedCheckpoint> Training::load(const std::string& resume) {
  require(step_count_ == 0, "training: load after the first step");
  await_save();
  Beginning beginning;
  together("looking into the run's folder", [&] {
    take_folder();
    if (!is_root()) return;
    beginning = find_beginning(folder_, resume);
  });
  share_beginning(beginning, comm_);
  if (!beginning.manifest) return std::nullopt;
  const RunState& state = beginning.manifest->state;
  if (state.train_batch != batch_.train)
    fail(ErrorKind::checkpoint,
         "{} was written with train_batch_size {}, this job has {}: the program would see other samples from here on. "
         "Bring back the number, or load nothing and start a new run",
         printable(beginning.checkpoint), state.train_batch, batch_.train);
  std::vector<std::string> buffers = engine_->buffer_names();
  require_same_tensors(beginning.checkpoint, *beginning.manifest, engine_->model(), buffers);
  together("loading the checkpoint", [&] { load_beginning(beginning, *engine_); });
  if (new_scaler(beginning, job_.config)) {
    StepState fresh = initial_state(options_.scaler);
    fresh.applied = state.step.applied;
    fresh.attempted = state.step.attempted;
    engine_->write_state(fresh);
  }
  if (const auto metric = metric_to_go_on(beginning, engine_->metric_state())) engine_->set_metric_state(*metric);
  require_equal_parameters(comm_, *engine_);
  step_count_ = state.step.attempted;
  if (!scheduler_.managed()) scheduler_.set_index(state.schedule_index);
  return LoadedCheckpoint{.path = beginning.checkpoint, .step = step_count_, .client_state = state.client_state};
}

}  // namespace lockstep::run
