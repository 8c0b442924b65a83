#include "run/lr_find.hpp"

#include <cmath>
#include <utility>

#include "comm/heartbeat.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "run/agreement.hpp"
#include "run/checkpoint_store.hpp"
#include "run/memory.hpp"
#include "run/micro_batch.hpp"
#include "run/resume.hpp"
#include "run/run_folder.hpp"
#include "run/setup.hpp"

namespace lockstep::run {
namespace {

/// The rate grows by the same factor from update to update; momentum and betas stay the optimizer's.
class Rising final : public sched::Schedule {
 public:
  Rising(std::vector<sched::GroupInitial> initial, std::int64_t first_update, const LrFindOptions& options)
      : Schedule("lr-find", {}, std::move(initial)), first_(first_update), options_(options) {}

  [[nodiscard]] double rate(std::int64_t k) const {
    const double part = static_cast<double>(k) / static_cast<double>(options_.steps - 1);
    return options_.from * std::pow(options_.to / options_.from, part);
  }

 private:
  void at_index(std::int64_t index, std::span<StepValues> out) const override {
    const double lr = rate(std::max<std::int64_t>(0, index + 1 - first_));
    const double base = initial()[0].lr;
    for (std::size_t g = 0; g < out.size(); ++g) out[g].lr = base == 0 ? lr : lr * (initial()[g].lr / base);
  }

  std::int64_t first_;
  LrFindOptions options_;
};

/// Everything of an engine that training changes.
class Snapshot {
 public:
  explicit Snapshot(engine::Engine& engine) : engine_(engine), state_(engine.read_state()) {
    for (const std::string& name : engine.buffer_names())
      for (const engine::FlatRange& range : ranges(name)) {
        std::vector<float>& values = pieces_.emplace_back(static_cast<std::size_t>(range.size()));
        engine.read_range(name, range.begin, range.size(), values.data());
      }
  }
  [[nodiscard]] const StepState& state() const { return state_; }
  /// Collective.
  void put_back() {
    std::size_t piece = 0;
    for (const std::string& name : engine_.buffer_names())
      for (const engine::FlatRange& range : ranges(name))
        engine_.write_range(name, range.begin, range.size(), pieces_[piece++].data());
    engine_.refresh();
    engine_.write_state(state_);
  }

 private:
  /// What this rank has of a buffer and nobody else will put back.
  [[nodiscard]] std::vector<engine::FlatRange> ranges(const std::string& name) const {
    if (engine_.replicated(name)) return {{0, engine_.layout().size()}};
    return engine_.own_ranges(name);
  }

  engine::Engine& engine_;
  StepState state_;
  std::vector<std::vector<float>> pieces_;
};

/// Follows the losses as they come; says when there is no use in going on.
class Watch {
 public:
  explicit Watch(double divergence) : divergence_(divergence) {}

  /// A sentence once the loss has run away.
  [[nodiscard]] std::string add(double loss, double lr) {
    constexpr double memory = 0.9;  // of the running mean that is judged, so that one bad batch ends nothing
    ++count_;
    mean_ = memory * mean_ + (1 - memory) * loss;
    const double now = mean_ / (1 - std::pow(memory, static_cast<double>(count_)));
    best_ = count_ == 1 ? now : std::min(best_, now);
    if (std::isfinite(loss) && (count_ < 10 || !(now > divergence_ * best_))) return {};
    return std::isfinite(loss) ? fmt::format("the loss ran away at lr {:.2g}", lr)
                               : fmt::format("the loss was no longer finite at lr {:.2g}", lr);
  }

 private:
  double divergence_;
  int count_ = 0;
  double mean_ = 0, best_ = 0;
};

LrFound rise(engine::Engine& engine, const std::function<void(std::int64_t)>& train_step,
             const LrFindOptions& options) {
  constexpr int most_skipped = 30;  // in a row: enough for the loss scale to find its place
  LrFound found;
  Watch watch(options.divergence);
  int skipped = 0;
  for (std::int64_t i = 0; std::ssize(found.sweep.lr) < options.steps; ++i) {
    try {
      train_step(i);
      engine.drain();
      for (const engine::FinishedStep& step : engine.results()) {
        const double lr = step.applied_values.at(0).lr;
        skipped = step.skipped != 0 ? skipped + 1 : 0;
        if (skipped == most_skipped) found.ended = fmt::format("no gradient was finite any more at lr {:.2g}", lr);
        if (skipped > 0) continue;
        found.ended = watch.add(step.loss, lr);
        if (!std::isfinite(step.loss)) continue;
        found.sweep.lr.push_back(lr);
        found.sweep.loss.push_back(step.loss);
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::diverged) throw;
      found.ended = fmt::format("the gradient was no longer finite after lr {:.2g}",
                                found.sweep.lr.empty() ? options.from : found.sweep.lr.back());
    }
    if (!found.ended.empty()) break;
  }
  return found;
}

}  // namespace

LrFound sweep_lr(engine::Engine& engine, const std::function<void(std::int64_t)>& train_step,
                 const LrFindOptions& options) {
  require(options.steps >= 10 && options.from > 0 && options.to > options.from,
          "sweep_lr: at least 10 steps from a rate above 0 to a higher one");
  Snapshot before(engine);
  const std::optional<sched::MetricState> metric = engine.metric_state();
  const auto schedule =
      engine.exchange_schedule(std::make_shared<Rising>(engine.options().groups, before.state().applied, options));
  const auto put_back = [&] {
    before.put_back();
    (void)engine.exchange_schedule(schedule);
    if (metric) engine.set_metric_state(*metric);
  };
  LrFound found;
  try {
    found = rise(engine, train_step, options);
  } catch (...) {
    put_back();
    throw;
  }
  put_back();
  return found;
}

LrFound find_lr(const job::LoadedJob& asked, const LrFindOptions& options, RankContext& rank) {
  job::LoadedJob loaded = asked;
  const job::JobConfig& job = loaded.config;
  comm::Communicator& comm = rank.comm;
  std::unique_ptr<data::Dataset> dataset;
  Beginning beginning;
  comm::run_with_heartbeat(comm, "reading the data", [&] {
    require_memory_for_data(job, free_memory(), rank);
    dataset = make_dataset(job);
    if (comm.rank() == 0 && !options.resume.empty()) beginning = find_beginning(run_folder(job), options.resume);
  });
  share_beginning(beginning, comm);
  const auto model = make_model(job, dataset->shape());
  if (!beginning.manifest) (void)settle_micro_batch(loaded, *model, rank);
  const job::BatchSizes batch = batch_for(job, beginning, rank);
  const engine::EngineOptions engine_settings = engine_options(
      loaded, *model, batch, comm.rank(), rank.place.device->immediate(), comm.capabilities().shared_address_space);
  require_same_run(beginning, job, *dataset, *model, engine_settings);
  require_memory({.job = loaded,
                  .model = *model,
                  .kernels = *rank.place.kernels,
                  .device = *rank.place.device,
                  .batch = batch,
                  .fixed_batch = beginning.manifest.has_value(),
                  .host_ranks = rank.host_ranks,
                  .process_ranks = rank.process_ranks,
                  .device_ranks = rank.device_ranks,
                  .reachable = comm.capabilities().shared_address_space},
                 comm);
  engine::Engine engine(*model, comm, rank.place, engine_settings);
  if (beginning.manifest)
    comm::run_with_heartbeat(comm, "loading the checkpoint", [&] {
      rank.place.device->use_here();
      load_checkpoint(beginning.checkpoint, *beginning.manifest, engine);
    });
  require_equal_parameters(comm, engine);
  if (comm.rank() == 0)
    log::print("model     {}\ndata      {}\nranks     {}\nbatch     {}\nstart     {}\n", model->describe(),
               dataset->describe(), rank.summary, batch.text,
               beginning.manifest ? printable(beginning.checkpoint) : "the job's own initial parameters");

  data::HostBatch samples;
  const std::int64_t first = beginning.first_step();
  const sum_tree::Block own = batch.micro_batches_of(comm.rank());
  const auto train_step = [&](std::int64_t i) {
    for (std::int64_t m = own.begin; m < own.end; ++m) {
      dataset->train_batch((first + i) * batch.train + m * batch.micro, batch.micro, samples);
      engine.forward(samples);
      engine.backward();
    }
    engine.step();
  };
  return sweep_lr(engine, train_step, options);
}

}  // namespace lockstep::run
