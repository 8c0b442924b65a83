// The engine's state as its owner sees it: initial values, lr, buffers for checkpoints.
#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "engine/engine.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {

void Engine::initialise_parameters() {
  constexpr std::int64_t piece = std::int64_t{1} << 20;
  std::vector<float> values;
  for (const FlatLayout::Slice& slice : layout_.slices()) {
    const nn::ParameterSpec& spec = model_.parameters()[static_cast<std::size_t>(slice.param)];
    const auto lane = static_cast<std::uint32_t>(slice.param);
    const float constant = spec.init == nn::Init::ones ? 1.0F : 0.0F;
    for (std::int64_t begin = 0; begin < spec.elements(); begin += piece) {
      const std::int64_t count = std::min(piece, spec.elements() - begin);
      values.assign(static_cast<std::size_t>(count), constant);
      float* to = values.data();
      if (spec.init == nn::Init::normal) {
#pragma omp parallel for num_threads(place_.threads) schedule(static)
        for (std::int64_t i = 0; i < count; ++i)
          to[i] = static_cast<float>(
              spec.stddev * normal_at(options_.seed, RngStream::init, lane, static_cast<std::uint64_t>(begin + i)));
      }
      write_range("master", slice.begin + begin, count, to);
    }
  }
}

/// Of one update, as this rank evaluates them.
void Engine::values_of(std::int64_t update, std::span<StepValues> out) const {
  if (options_.schedule == nullptr) {
    std::ranges::copy(user_values_, out.begin());
    return;
  }
  options_.schedule->values_at(update, out);
  if (metric_state_) options_.schedule->follow(update, *metric_state_, out);
}

std::vector<double> Engine::lr() const {
  std::vector<StepValues> values(user_values_.size());
  values_of(known_applied_, values);
  std::vector<double> result;
  for (const StepValues& value : values) result.push_back(value.lr);
  return result;
}

void Engine::set_lr(const std::vector<double>& lr) {
  require(lr.size() == user_values_.size(), "engine: set_lr needs one value per parameter group");
  std::vector<StepValues> values = user_values_;
  for (std::size_t g = 0; g < lr.size(); ++g) values[g].lr = lr[g];
  set_values(values);
}

void Engine::set_values(const std::vector<StepValues>& values) {
  require(
      options_.schedule == nullptr,
      "engine: set_lr on a managed schedule; the engine steps it once per update by itself. Make the engine without a "
      "schedule to set lr by hand");
  require(values.size() == user_values_.size(), "engine: set_values needs one entry per parameter group");
  user_values_ = values;
}

std::shared_ptr<const sched::Schedule> Engine::exchange_schedule(std::shared_ptr<const sched::Schedule> schedule) {
  require(micro_ == 0 && !in_pass_, "engine: another schedule in the middle of a step");
  require(schedule == nullptr || schedule->groups() == options_.groups.size(),
          "engine: the schedule was made for another number of parameter groups");
  drain();
  metric_state_ = schedule == nullptr ? std::nullopt : schedule->metric_state();
  return std::exchange(options_.schedule, std::move(schedule));
}

void Engine::observe(double metric) {
  require(metric_state_.has_value(), "engine: observe, but the schedule reads no metric");
  require(micro_ == 0 && !in_pass_, "engine: observe in the middle of a step");
  drain();
  options_.schedule->observe(known_applied_, metric, *metric_state_);
}

void Engine::set_metric_state(const sched::MetricState& state) {
  require(metric_state_.has_value(), "engine: a metric's state, but the schedule reads no metric");
  require(state.lr.size() == user_values_.size(),
          "engine: the metric's state is of another number of parameter groups");
  metric_state_ = state;
}

/// Everything is on every rank; so that all of them write, each saves an even part.
std::vector<FlatRange> Engine::own_ranges(const std::string& name) const {
  (void)buffers_.range(name, 0, 0);
  const std::int64_t pieces = layout_.size() / slice_alignment;
  const auto edge = [&](std::int64_t rank) { return pieces * rank / comm_.size() * slice_alignment; };
  const FlatRange own{edge(comm_.rank()), comm_.rank() + 1 == comm_.size() ? layout_.size() : edge(comm_.rank() + 1)};
  if (own.size() == 0) return {};
  return {own};
}

void Engine::gather_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to, int root) {
  if (comm_.rank() == root) read_range(name, begin, count, to);
}

void Engine::read_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to) {
  Device& d = *device_;
  d.api.copy(to, buffers_.range(name, begin, count), static_cast<std::size_t>(count) * sizeof(float), d.stream.ref);
  d.api.synchronize(d.stream.ref);
}

void Engine::write_range(const std::string& name, std::int64_t begin, std::int64_t count, const float* from) {
  Device& d = *device_;
  float* to = buffers_.range(name, begin, count);
  d.api.copy(to, from, static_cast<std::size_t>(count) * sizeof(float), d.stream.ref);
  if (name == "master" && buffers_.param16() != nullptr)
    kernels::cast(context_options(nn::Mode::evaluate).exec,
                  {.from = to,
                   .from_dtype = DType::f32,
                   .to = static_cast<std::byte*>(buffers_.param16()) +
                         static_cast<std::size_t>(begin) * size_of(options_.compute),
                   .to_dtype = options_.compute,
                   .count = static_cast<std::size_t>(count)});
  d.api.synchronize(d.stream.ref);
  store_.values_changed();
}

StepState Engine::read_state() {
  drain();
  Device& d = *device_;
  StepState state;
  d.api.copy(&state, d.state.data(), sizeof(StepState), d.stream.ref);
  d.api.synchronize(d.stream.ref);
  return state;
}

void Engine::write_state(const StepState& state) {
  drain();
  Device& d = *device_;
  d.api.copy(d.state.data(), &state, sizeof(StepState), d.stream.ref);
  d.api.synchronize(d.stream.ref);
  d.steps.restart(state.attempted);
  known_applied_ = applied_at_restart_ = state.applied;
  restarted_at_ = state.attempted;
  applied_after_.assign(static_cast<std::size_t>(d.steps.most_in_flight()), state.applied);
  finished_.clear();
}

std::size_t Engine::bytes() const {
  const Device& d = *device_;
  std::size_t total = buffers_.bytes() + d.steps.bytes() + d.batches.bytes() + d.reports->bytes() + d.loss->bytes();
  total += packed_weight_bytes_ + place_.kernels->context_bytes;
  if (leaf_sums_ != nullptr) total += leaf_sums_->bytes();
  for (const Arena* arena : {&d.workspace, &d.tiles, &d.tensors, &d.update_scratch, &d.norm_leaves, &d.norm_sums,
                             &d.norm_bad, &d.groups, &d.state, &d.eval_loss})
    total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
