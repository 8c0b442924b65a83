#include "run/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <span>
#include <thread>
#include <utility>

#include "comm/heartbeat.hpp"
#include "core/error.hpp"
#include "core/isa.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "data/prefetch.hpp"
#include "engine/evaluate.hpp"
#include "run/agreement.hpp"
#include "run/background_save.hpp"
#include "run/checkpoint_store.hpp"
#include "run/drift_guard.hpp"
#include "run/drill.hpp"
#include "run/fault.hpp"
#include "run/fault_disk.hpp"
#include "run/hf_model.hpp"
#include "run/host_speed.hpp"
#include "run/memory.hpp"
#include "run/metrics.hpp"
#include "run/micro_batch.hpp"
#include "run/monitors.hpp"
#include "run/process_memory.hpp"
#include "run/progress.hpp"
#include "run/resume.hpp"
#include "run/resume_proof.hpp"
#include "run/run_folder.hpp"
#include "run/run_header.hpp"
#include "run/run_starts.hpp"
#include "run/run_state.hpp"
#include "run/setup.hpp"
#include "run/step_probe.hpp"
#include "run/wishes.hpp"

namespace lockstep::run {
namespace {

using Clock = std::chrono::steady_clock;

class Training {
 public:
  Training(const job::LoadedJob& job, const std::string& resume, RankContext& rank)
      : loaded_(job),
        rank_(rank),
        comm_(rank.comm),
        drill_(drill_from_environment()),
        faults_(Faults::from_environment()),
        folder_(run_folder(job_)) {
    together("reading the data", [&] {
      require_memory_for_data(job_, free_memory(), rank_);
      dataset_ = make_dataset(job_);
    });
    require_equal_data();
    model_ = make_model(job_, dataset_->shape());
    faults_.require_known(model_->parameters());
    together("looking into the run's folder", [&] {
      if (!is_root()) return open_store("");
      take_folder();
      beginning_ = find_beginning(folder_, resume);
    });
    share_beginning(beginning_, comm_);
    const std::string why_micro = beginning_.manifest ? "" : settle_micro_batch(loaded_, *model_, rank_);
    batch_ = batch_for(job_, beginning_, rank_);
    explain_micro_batch(batch_, why_micro);
    if (job_.micro_batch_is_auto()) loaded_.config.train_micro_batch_size_per_gpu = batch_.micro;
    options_ = engine_options(loaded_, *model_, batch_, comm_.rank(), rank_.place.device->immediate(),
                              comm_.capabilities().shared_address_space);
    capture_ = choose_capture(job_, *rank_.place.device);
    options_.captured = capture_.captured;
    require_same_run(beginning_, job_, *dataset_, *model_, options_);
    if (options_.schedule->metric_state() && dataset_->eval_samples() == 0)
      fail(ErrorKind::config,
           "scheduler {} reads val_loss, and there are no validation samples: give data.validation_fraction a part of "
           "the data, or take a schedule that needs no metric",
           options_.schedule->type());
  }

  TrainResult run() {
    const std::int64_t first = beginning_.first_step();
    if (beginning_.manifest && first >= job_.run.steps) return already_complete();
    planned_ = require_memory(memory_question(), comm_);
    const bool beside = wants_snapshot(job_) && room_for_snapshots(memory_question(), planned_, comm_);
    const std::size_t snapshot = planned_.snapshot;
    if (!beside) planned_.snapshot = 0;
    make_probe();
    make_engine();
    if (beside) background_.emplace(*store_, *engine_);
    const std::string proof = prove_resume();
    together("opening the run's folder", [&] {
      if (is_root()) open_folder();
    });
    if (is_root()) print_run_header({loaded_, rank_, *dataset_, batch_, *engine_, beginning_, capture_});
    if (is_root() && !proof.empty()) log::print("          {}\n", proof);
    if (is_root() && wants_snapshot(job_) && !beside)
      log::print("saving    training stops while a checkpoint is written: {} for a copy are not free on every rank\n",
                 human_bytes(static_cast<double>(snapshot)));
    if (is_root() && !faults_.text().empty()) log::print("faults    LOCKSTEP_FAULT={}\n", printable(faults_.text()));
    Progress progress(first, job_.run.steps, job_.print_every(), is_root());
    Wishes wishes(folder_, is_root());
    const auto begin = Clock::now();
    step_began_ = begin;

    begin_batches(first);
    last_step_ = job_.run.steps;
    try {
      train_steps(first, progress, wishes);
    } catch (const Error& error) {
      // All ranks diverge in the same step, so they can still see to the end of a save; on devices each learns of it at
      // a step of its own.
      if (error.kind() == ErrorKind::diverged && engine_->result_delay() == 0) finish_save(progress, wishes);
      throw;
    }
    if (!unsaved_.empty())
      fail(ErrorKind::checkpoint,
           "step {} was reached, but it is not saved ({} of this run's saves were given up): {}\n  Make space and run "
           "the "
           "same command again: it goes on from the newest checkpoint, if there is one",
           state_.attempted, failed_saves_, unsaved_);
    if (is_root() && failed_saves_ > 0)
      log::warning("{} given up because of the disk; the last one is there", counted(failed_saves_, "save"));
    if (state_.attempted < job_.run.steps)
      fail(ErrorKind::preempted,
           "stopped on request after step {}; everything is saved. The same command goes on from there.",
           state_.attempted);
    TrainResult result{.steps = state_.attempted, .updates = state_.applied, .val_loss = {}};
    if (evaluation_) {
      result.val_loss = evaluation_->loss;
      result.val_accuracy = evaluation_->accuracy;
    }
    if (is_root() && job_.run.profile) log::print("{}", profile_text(*probe_, ceilings_));
    if (is_root() && job_.run.profile && sent_.messages > 0) {
      const auto steps = static_cast<double>(last_step_ - first - 2);
      log::print("sent      {:.1f} messages, {} a step, by this rank\n", static_cast<double>(sent_.messages) / steps,
                 human_bytes(static_cast<double>(sent_.bytes) / steps));
    }
    if (is_root()) print_memory();
    if (is_root())
      log::print("done: {} ({}) in {}{}; run folder {}\n", counted(job_.run.steps, "step"),
                 counted(result.updates, "update"),
                 duration_text(std::chrono::duration<double>(Clock::now() - begin).count()),
                 evaluation_ ? ", " + text_of(*evaluation_) : "", folder_);
    return result;
  }

 private:
  void train_steps(std::int64_t first, Progress& progress, Wishes& wishes) {
    for (std::int64_t step = first; step < last_step_; ++step) {
      wishes.pass_on(*engine_);
      comm_.at_step(step + 1);
      faults_.strike(FaultPoint::begin, step + 1, *engine_);
      if (probe_) probe_->begin_step(step + 1, job_.run.profile && step >= first + 2);
      if (background_) background_->report();
      const comm::Traffic before = comm_.traffic();
      train_step();
      if (step >= first + 2) sent_ = sent_ + (comm_.traffic() - before);
      if (probe_) probe_->end_step();
      faults_.strike(FaultPoint::end, step + 1, *engine_);
      if (trace_is_due(step + 1)) write_trace(progress);
      const std::int64_t done = step + 1;
      const bool end = done == job_.run.steps;
      const bool evaluate = job_.run.eval_every > 0 && (end || done % job_.run.eval_every == 0);
      const bool save =
          end || done == save_after_ || (job_.run.checkpoint.every > 0 && done % job_.run.checkpoint.every == 0);
      const bool all = evaluate || save || guard_->due(done) || done == last_step_;
      if (all) engine_->drain();
      if (all) look_at_memory();
      take_results(evaluate ? done : 0, progress);
      // A step that ended the run comes by itself, behind those before it.
      const auto asked = [&] { return done == save_after_ || done == last_step_ || done == part_over_after_; };
      const bool late = !all && asked();  // the wish has only just been seen
      if (late) engine_->drain();
      if (all || late) take_results(0, progress);
      if (diverged_ && (all || late || done >= diverged_->step.step + 1 + engine_->result_delay())) end_diverged();
      if (done == part_over_after_) go_on_saving(progress, wishes);
      const bool saves = save || done == save_after_ || done == last_step_;
      if (saves || guard_->due(done)) look_for_drift(done);
      if (saves) save_checkpoint(done, progress, wishes);
    }
  }

  /// Ranks learn at different moments that the run has ended, but all by the same step: so far they go on together,
  /// with steps that change nothing, so that what follows can be done by all.
  void take_results(std::int64_t evaluate, Progress& progress) {
    if (diverged_) return;
    std::vector<engine::FinishedStep> results;
    try {
      results = engine_->results();
    } catch (const Error& error) {
      const std::optional<StepResult> halted = engine_->halted();
      if (error.kind() != ErrorKind::diverged || !halted) throw;
      diverged_ = Divergence{error, *halted};
      return;
    }
    try {
      record(results, evaluate, progress);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::diverged) throw;
      diverged_ = Divergence{error, seen_last_};
    }
  }

  [[noreturn]] void end_diverged() {
    const Error& error = diverged_->error;
    if (!job_.run.guard.provenance) throw error;
    engine_->drain();
    const StepResult& step = diverged_->step;
    // Only where results come late: a run that ends because too many steps were skipped goes on until it learns of it.
    if (engine_->read_state().applied != step.applied)
      fail(ErrorKind::diverged,
           "{}\n  Later steps were applied before that was known: where in the step it began cannot "
           "be looked for any more.",
           error.what());
    const sum_tree::Block own = batch_.micro_batches_of(comm_.rank());
    data::HostBatch samples;
    const engine::NonFinite found = engine_->find_non_finite(step, [&](int micro) -> const data::HostBatch& {
      dataset_->train_batch(step.step * batch_.train + (own.begin + micro) * batch_.micro, batch_.micro, samples);
      return samples;
    });
    const std::string name = found.sample >= 0 ? dataset_->name_of(found.sample) : "";
    const std::int64_t micro_batches = batch_.micro_batches_of(found.rank).size();
    fail(ErrorKind::diverged, "{}\n  {}.", error.what(),
         to_text(found, *model_, engine_->plan(), comm_.size(), micro_batches, name));
  }

  /// Work that may take longer than the ranks wait for each other; its error ends all of them alike.
  void together(std::string_view what, const std::function<void()>& work) {
    const auto here = [&] {
      rank_.place.device->use_here();
      work();
    };
    comm::run_with_heartbeat(comm_, what, here, heartbeat());
  }
  [[nodiscard]] comm::Seconds heartbeat() const { return comm::Seconds(std::min(1.0, job_.comm.timeout_s / 4)); }

  /// Collective: what the ranks' processes take now, that of the largest.
  void look_at_memory() {
    memory_.look();
    std::vector<std::uint64_t> all(static_cast<std::size_t>(comm_.size()));
    all[static_cast<std::size_t>(comm_.rank())] = memory_.bytes();
    comm_.all_gather_values(std::span(all));
    most_memory_ = peak_memory_ = *std::ranges::max_element(all);
  }

  /// Watches the steps, if the job asks for it.
  void make_probe() {
    const auto& traced = job_.run.trace.steps;
    if (!job_.run.profile && !traced) return;
    if (!rank_.place.device->immediate())
      fail(ErrorKind::config,
           "run.{}: a GPU does its work after the host has asked for it, so that the host's clock says nothing of its "
           "parts; take run.device: cpu, or look at the run with nsys (docs/gpu.md)",
           job_.run.profile ? "profile" : "trace");
    probe_.emplace(traced ? traced->front() : 0, traced ? traced->back() : 0);
    if (job_.run.profile) {
      comm_.barrier();  // all ranks measure at once, as they compute
      ceilings_ = {.flops_per_s = product_speed(rank_.place, compute_dtype(job_)),
                   .bytes_per_s = memory_speed(rank_.place)};
    }
    options_.probe = &*probe_;
    probed_.emplace(comm_, *probe_);
  }

  [[nodiscard]] bool trace_is_due(std::int64_t done) const {
    const auto& traced = job_.run.trace.steps;
    return traced && done == std::min(traced->back(), job_.run.steps) && done >= traced->front();
  }

  /// Collective.
  void write_trace(Progress& progress) {
    const std::string trace = gather_trace(*probe_, comm_);
    if (!is_root()) return;
    files::replace_text_file(folder_ + "/trace.json", trace);
    progress.note("trace " + folder_ + "/trace.json");
  }

  /// Beside what the plan says of a process.
  void print_memory() const {
    if (peak_memory_ == 0) return;
    const std::size_t planned = planned_process_bytes(job_, planned_, rank_.host_ranks, rank_.process_ranks,
                                                      rank_.place.device->memory() == Memory::host);
    log::print("memory    at most {} in a process (PSS), planned {}\n", human_bytes(static_cast<double>(peak_memory_)),
               human_bytes(static_cast<double>(planned)));
  }

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

  void open_store(const std::string& run_id) {
    store_.emplace(StoreOptions{.folder = folder_ + "/checkpoints",
                                .keep_last = job_.run.checkpoint.keep_last,
                                .keep_every = job_.run.checkpoint.keep_every,
                                .run_id = run_id,
                                .heartbeat = heartbeat()},
                   faults_.text().empty() ? files::disk() : disk_);
  }

  /// Rank 0: from here on no other job changes the run's folder.
  void take_folder() {
    lock_.emplace(folder_);
    open_store(lock_->run_id());
    if (lock_->effective())
      store_->clean_up();
    else
      log::warning("{}: the file system has no locks; two jobs on this run would not notice each other", folder_);
  }

  [[nodiscard]] MemoryQuestion memory_question() {
    return {.job = loaded_,
            .model = *model_,
            .kernels = *rank_.place.kernels,
            .device = *rank_.place.device,
            .batch = batch_,
            .fixed_batch = beginning_.manifest.has_value(),
            .host_ranks = rank_.host_ranks,
            .process_ranks = rank_.process_ranks,
            .device_ranks = rank_.device_ranks,
            .reachable = comm_.capabilities().shared_address_space};
  }

  void make_engine() {
    if (drill_.desync_rank == comm_.rank()) options_.schedule = off_by_one_bit(options_.schedule, drill_.desync_step);
    with_memory_advice(memory_question(), [&] { engine_.emplace(*model_, comm_, rank_.place, options_); });
    if (beginning_.manifest)
      together("loading the checkpoint", [&] { load_beginning(beginning_, *engine_); });
    else if (const auto& folder = job_.model.gpt2.init_from; folder && job_.model.type == "gpt2")
      together("loading model.init_from", [&] { load_hf_weights(*folder, *engine_); });
    if (new_scaler(beginning_, job_)) {
      StepState state = initial_state(options_.scaler);
      state.applied = beginning_.manifest->state.step.applied;
      state.attempted = beginning_.manifest->state.step.attempted;
      engine_->write_state(state);
    }
    if (const auto metric = metric_to_go_on(beginning_, engine_->metric_state())) engine_->set_metric_state(*metric);
    require_equal_parameters(comm_, *engine_);
    guard_.emplace(*engine_, job_.run.guard.every);
  }

  /// Rank 0.
  void open_folder() {
    open_run_folder(folder_, *store_, beginning_);
    files::replace_text_file(folder_ + "/job.yaml", job::effective_yaml(job_));
    metrics_.emplace(folder_ + "/metrics.jsonl", beginning_.metrics);
    append_start(folder_, {.step = beginning_.first_step(),
                           .ranks = rank_.summary,
                           .batch = batch_.text,
                           .model = model_->describe(),
                           .data = dataset_->describe()});
    monitors_.emplace(job_, folder_, beginning_.first_step() * batch_.train);
  }

  [[nodiscard]] bool is_root() const { return comm_.rank() == 0; }
  [[nodiscard]] bool is_text() const { return dataset_->features() == 0; }
  [[nodiscard]] std::int64_t items_per_step() const { return batch_.train * (is_text() ? sample_length(job_) : 1); }

  TrainResult already_complete() const {
    const StepState& state = beginning_.manifest->state.step;
    if (is_root()) print_complete(beginning_, job_);
    return {.steps = state.attempted, .updates = state.applied, .val_loss = {}, .was_complete = true};
  }

  /// All micro-batches of this rank, then the update.
  void train_step() {
    clock_.begin_step();
    for (std::int64_t i = 0; i < engine_->options().grad_accum; ++i) {
      const data::HostBatch& samples = next_batch();
      clock_.lap(&StepTimes::data);
      engine_->forward(samples);
      clock_.lap(&StepTimes::forward);
      engine_->backward();
      clock_.lap(&StepTimes::backward);
    }
    if (guard_->armed()) together("looking for drift", [&] { guard_->require_unchanged(); });
    engine_->step();
    clock_.lap(&StepTimes::step);
  }

  const data::HostBatch& next_batch() {
    const ProbeScope scope(probe_ ? &*probe_ : nullptr, Activity::data, "samples");
    return batches_->next();
  }

  /// Before a checkpoint too: what is saved was equal on all ranks.
  void look_for_drift(std::int64_t done) {
    const auto began = Clock::now();
    guard_->compare(done);
    step_began_ += Clock::now() - began;
  }

  /// This rank's micro-batches from step `first` on are made ahead. Ranks take consecutive parts of a step's samples.
  void begin_batches(std::int64_t first) {
    const sum_tree::Block own = batch_.micro_batches_of(comm_.rank());
    const std::int64_t micro = batch_.micro, train = batch_.train;
    batches_.emplace(*dataset_, micro, (job_.run.steps - first) * own.size(), [=](std::int64_t k) {
      return (first + k / own.size()) * train + (own.begin + k % own.size()) * micro;
    });
  }

  /// Writes what has finished; step `evaluate`, counted from 1, with the validation loss. If a rank asked to stop,
  /// fixes the step after which all of them do: the same one, although they may see the wish at different moments.
  void record(const std::vector<engine::FinishedStep>& results, std::int64_t evaluate, Progress& progress) {
    for (const engine::FinishedStep& r : results) {
      const auto now = Clock::now();
      const double seconds = std::chrono::duration<double>(now - step_began_).count();
      step_began_ = now;
      seen_last_ = r;
      StepMetrics m{.step = r.step + 1,
                    .update = r.applied,
                    .loss = r.loss,
                    .lr = lr_of(r),
                    .grad_norm = r.grad_norm,
                    .loss_scale = r.scale,
                    .skipped = r.skipped != 0,
                    .items_per_s = static_cast<double>(items_per_step()) / seconds,
                    .item = is_text() ? "tokens" : "samples",
                    .step_ms = seconds * 1e3,
                    .val_loss = {},
                    .val_accuracy = {}};
      if (most_memory_ > 0 && &r == &results.back()) m.memory_bytes = std::exchange(most_memory_, 0);
      if (m.step == evaluate) {
        evaluation_ = engine::evaluate_all(*engine_, *dataset_);
        if (evaluation_) {
          m.val_loss = evaluation_->loss;
          m.val_accuracy = evaluation_->accuracy;
        }
        step_began_ = Clock::now();
      }
      if (m.skipped)
        progress.note(fmt::format("step {}: non-finite gradient in {}; update skipped, loss scale {} -> {}", m.step,
                                  engine_->parameter_at(r.first_bad), r.scale, r.next_scale));
      progress.step(m);
      if (m.val_loss)
        progress.note(fmt::format("step {}: {} ({})", m.step, text_of(*evaluation_),
                                  counted(dataset_->eval_samples(), "validation sample")));
      // Not the evaluation that only the end of a run adds: a longer run would not have made it.
      if (m.val_loss && m.step % job_.run.eval_every == 0) observe(*m.val_loss, m.step, progress);
      if (metrics_) say(progress, metrics_->write(m));
      const StepTimes times = clock_.finish_step();
      const bool timed = job_.wall_clock_breakdown;
      if (monitors_)
        say(progress, monitors_->write(m, m.step * batch_.train, timed ? std::optional(times) : std::nullopt));
      if (timed && job_.prints_at(m.step)) progress.note(clock_.breakdown());
      require_progress(r);
      if (r.stop != 0) follow(r);
      // No rank is busy with the save that is under way any more: all go on with it after the same step.
      const bool over = (r.stop & engine::Engine::still_busy) == 0 && part_over_after_ <= r.step;
      if (background_ && background_->under_way() && over) part_over_after_ = r.step + 1 + engine_->result_delay();
    }
  }

  /// All ranks save, and perhaps end, after the same step: the first by which each of them has surely seen the wish.
  void follow(const engine::FinishedStep& r) {
    const std::int64_t step = r.step + 1 + engine_->result_delay();
    if ((r.stop & engine::Engine::wish_to_stop) != 0)
      last_step_ = std::min(last_step_, step);
    else if ((r.stop & engine::Engine::wish_to_save) != 0 &&
             r.step + 1 > save_after_)  // otherwise the save that is due meets this wish too
      save_after_ = step;
  }

  /// Every rank has evaluated the same loss; what follows from it goes into the record of the next step.
  void observe(double val_loss, std::int64_t step, Progress& progress) {
    if (!engine_->metric_state()) return;
    const std::vector<double> before = engine_->lr();
    engine_->observe(val_loss);
    const std::vector<double> now = engine_->lr();
    if (now != before)
      progress.note(fmt::format("step {}: val_loss has stopped improving; lr {:.4g} -> {:.4g}", step, before.front(),
                                now.front()));
  }

  /// "val_loss 0.3267", with ", val_accuracy 0.8812" of a classifier.
  static std::string text_of(const engine::Evaluation& evaluation) {
    std::string text = fmt::format("val_loss {:.4f}", evaluation.loss);
    if (evaluation.accuracy) text += fmt::format(", val_accuracy {:.4f}", *evaluation.accuracy);
    return text;
  }

  /// What the update kernels of the step read (of a skipped one: would have read).
  static std::vector<double> lr_of(const engine::FinishedStep& step) {
    std::vector<double> lr;
    for (const StepValues& values : step.applied_values) lr.push_back(values.lr);
    return lr;
  }

  /// A run whose every step is skipped trains nothing, however many steps it takes. One that ends while its loss scale
  /// is still on the way down may go on later.
  void require_progress(const StepResult& r) {
    skipped_in_a_row_ = r.skipped != 0 ? skipped_in_a_row_ + 1 : 0;
    const bool all = r.step + 1 == job_.run.steps && r.next_scale == r.scale &&
                     skipped_in_a_row_ == job_.run.steps - beginning_.first_step();
    if (skipped_in_a_row_ == 0 || (skipped_in_a_row_ != job_.run.max_skipped_steps && !all)) return;
    fail(ErrorKind::diverged,
         "step {}: the {} steps up to here were all skipped, so nothing is learnt (run.max_skipped_steps).\n  {}\n"
         "  Try: a lower lr or longer warm-up; gradient_clipping; with fp16 a dynamic loss scale (fp16.loss_scale: 0); "
         "a look at the data around the first of them.",
         r.step + 1, skipped_in_a_row_, engine_->first_non_finite(r.first_bad));
  }

  /// Before anything of the run's folder is changed. Empty where nothing goes on.
  std::string prove_resume() {
    if (!beginning_.manifest || !beginning_.manifest->state.next_loss) return {};
    const RunState& from = beginning_.manifest->state;
    const auto now = next_loss(*engine_, *dataset_, from.step.attempted * batch_.train, batch_.train);
    const bool invariant = job_.run.determinism == "invariant";
    const auto& then = beginning_.job_of_then;
    const bool same_numbers =
        then && then->bf16.enabled == job_.bf16.enabled && then->fp16.enabled == job_.fp16.enabled;
    const bool same_place = from.threads == rank_.place.threads && from.isa == isa_for_bits(engine_->multiplies_bf16());
    const ProofTerms terms = {.same_bits = same_numbers && (same_place || invariant),
                              .fp32 = same_numbers && engine_->options().compute == DType::f32};
    return resume_proof(*from.next_loss, now, terms, beginning_.checkpoint);
  }

  /// After `done` steps, none in flight. The end of a run is waited for.
  void save_checkpoint(std::int64_t done, Progress& progress, Wishes& wishes) {
    finish_save(progress, wishes);
    const auto began = Clock::now();
    state_ = engine_->read_state();
    faults_.strike(FaultPoint::save, done, *engine_);
    disk_.fail_with(faults_.take_disk_error());
    const RunState state = run_state();
    saving_last_ = done == job_.run.steps || done == last_step_;
    const SaveHooks hooks = {.before = [this] { metrics_flushed_ = metrics_->flush_to_disk(); },
                             .writing = [this, done] { faults_.strike(FaultPoint::writing, done, *engine_); },
                             .under_way =
                                 [this, done] {
                                   std::this_thread::sleep_for(drill_.save_delay);
                                   faults_.strike(FaultPoint::commit, done, *engine_);
                                 }};
    if (background_ && !saving_last_) {
      background_->begin(state, hooks);
    } else {
      const Saved saved = store_->save(*engine_, state, hooks);
      tell(saved, std::chrono::duration<double>(Clock::now() - began).count(), progress, wishes);
    }
    wishes.met();
    log::debug("step {}: training stood still for {:.1f} ms to save", done,
               std::chrono::duration<double, std::milli>(Clock::now() - began).count());
    step_began_ = Clock::now();
  }

  /// Collective, after a step whose report says that no rank is busy with the save under way.
  void go_on_saving(Progress& progress, Wishes& wishes) {
    const auto began = Clock::now();
    part_over_after_ = 0;
    if (const std::optional<Saved> saved = background_->advance())
      tell(*saved, background_->seconds(), progress, wishes);
    step_began_ += Clock::now() - began;
  }

  /// Collective: at most one save is under way.
  void finish_save(Progress& progress, Wishes& wishes) {
    if (!background_ || !background_->under_way()) return;
    part_over_after_ = 0;
    const Saved saved = background_->finish();
    tell(saved, background_->seconds(), progress, wishes);
  }

  /// How a save of so many seconds ended.
  void tell(const Saved& saved, double seconds, Progress& progress, Wishes& wishes) {
    disk_.fail_with(0);
    if (metrics_) say(progress, metrics_->flushed(metrics_flushed_));
    if (is_root() && !saved.path.empty()) progress.note("checkpoint " + saved.path);
    if (is_root() && !saved.trouble.empty())
      progress.note("warning: " + saved.trouble + (saving_last_ ? "" : "; training goes on"));
    failed_saves_ += saved.path.empty() ? 1 : 0;
    unsaved_ = saved.path.empty() ? saved.trouble : "";
    wishes.saved(seconds, progress);
  }

  /// What a checkpoint says of this moment beside the tensors. Collective.
  RunState run_state() {
    RunState state = run_state_of(*engine_, state_, job_, batch_, rank_.place.threads);
    state.data = data_fingerprint(*dataset_);
    state.next_loss = next_loss(*engine_, *dataset_, state_.attempted * batch_.train, batch_.train);
    return state;
  }

  static void say(Progress& progress, const std::string& text) {
    if (!text.empty()) progress.note(text);
  }

  job::LoadedJob loaded_;  ///< with the micro-batch that was chosen, where the job says auto
  const job::JobConfig& job_ = loaded_.config;
  RankContext& rank_;
  comm::Communicator& comm_;
  Drill drill_;
  Faults faults_;
  std::string folder_;
  std::unique_ptr<data::Dataset> dataset_;
  std::unique_ptr<nn::Model> model_;
  Beginning beginning_;
  job::BatchSizes batch_;
  engine::EngineOptions options_;
  Capture capture_;
  std::optional<engine::Engine> engine_;
  std::optional<DriftGuard> guard_;
  FaultDisk disk_{files::disk()};
  std::optional<CheckpointStore> store_;
  // On rank 0:
  std::optional<RunLock> lock_;
  std::optional<MetricsFile> metrics_;
  std::optional<Monitors> monitors_;
  int metrics_flushed_ = 0;  ///< what flushing them said, of the latest save

  std::optional<data::Prefetch> batches_;
  StepClock clock_;
  std::optional<StepProbe> probe_;
  Ceilings ceilings_;
  /// The communicator, which outlives the probe, forgets it.
  struct Probed {
    Probed(comm::Communicator& of, Probe& probe) : comm(of) { comm.set_probe(&probe); }
    Probed(const Probed&) = delete;
    Probed& operator=(const Probed&) = delete;
    ~Probed() { comm.set_probe(nullptr); }
    comm::Communicator& comm;
  };
  std::optional<Probed> probed_;
  MemoryNeed planned_;
  PeakMemory memory_;
  std::uint64_t most_memory_ = 0;  ///< to be written with the latest step
  std::uint64_t peak_memory_ = 0;  ///< of all ranks' processes
  StepState state_;
  StepResult seen_last_;
  struct Divergence {
    Error error;
    StepResult step;
  };
  std::optional<Divergence> diverged_;            ///< the run is over, and this rank knows
  std::optional<engine::Evaluation> evaluation_;  ///< the last one
  comm::Traffic sent_;                            ///< in all steps but the first two
  std::int64_t skipped_in_a_row_ = 0;
  std::int64_t failed_saves_ = 0;     ///< given up because of the disk
  std::string unsaved_;               ///< why the last save was given up; empty: it was not
  std::int64_t last_step_ = 0;        ///< run.steps, or less once somebody asked to stop
  std::int64_t save_after_ = 0;       ///< the step after which all save because somebody asked, the last one
  std::int64_t part_over_after_ = 0;  ///< the step after which all go on with the save under way, the last one
  bool saving_last_ = false;          ///< nothing is trained behind the save
  Clock::time_point step_began_;
  std::optional<BackgroundSave> background_;  // last: its threads use the others
};

}  // namespace

TrainResult train(const job::LoadedJob& job, const std::string& resume, RankContext& rank) {
  return Training(job, resume, rank).run();
}

}  // namespace lockstep::run
