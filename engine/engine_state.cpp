// The engine's state as its owner sees it: initial values, lr, buffers for checkpoints.
#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "engine/engine.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {
namespace {

/// As the update kernels round a 16-bit copy.
void round_to(DType dtype, const float* from, std::size_t count, std::byte* to, int threads) {
  const auto round = [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::size_t i = 0; i < count; ++i) out[i] = T(from[i]);
  };
  if (dtype == DType::bf16)
    round(reinterpret_cast<bf16*>(to));
  else
    round(reinterpret_cast<f16*>(to));
}

}  // namespace

void Engine::initialise_parameters() {
  constexpr std::int64_t piece = std::int64_t{1} << 20;
  std::vector<float> values;
  const bool whole = !one_copy_ && (buffers_.values_extent() == Extent::full || replicated("master"));
  const auto holds_some = [&](std::int64_t begin, std::int64_t end) {
    bool some = whole;
    map_.for_own(begin, end, [&](const ShardMap::Own&) { some = true; });
    return some;
  };
  for (const FlatLayout::Slice& slice : layout_.slices()) {
    const nn::ParameterSpec& spec = model_.parameters()[static_cast<std::size_t>(slice.param)];
    const auto lane = static_cast<std::uint32_t>(slice.param);
    const float constant = spec.init == nn::Init::ones ? 1.0F : 0.0F;
    for (std::int64_t begin = 0; begin < spec.elements(); begin += piece) {
      const std::int64_t count = std::min(piece, spec.elements() - begin);
      if (!holds_some(slice.begin + begin, slice.begin + begin + count)) continue;
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
  if (one_copy_) refresh();
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

void Engine::settle_values() {
  if (values_ != nullptr) values_->settle(device_->stream.ref);
}

void Engine::refresh() {
  if (values_ == nullptr) return;
  values_->updated(device_->stream.ref);
  settle_values();
  device_->api.synchronize(device_->stream.ref);
  store_.values_changed();
}

void Engine::check_range(std::int64_t begin, std::int64_t count) const {
  require(begin >= 0 && count >= 0 && count <= layout_.size() - begin, "engine: a range outside the flat space");
}

bool Engine::replicated(const std::string& name) const {
  return buffers_.extent(name) == Extent::full && !buffers_.one_copy(name);
}

std::vector<FlatRange> Engine::own_ranges(const std::string& name) const {
  (void)buffers_.extent(name);
  if (map_.sharded()) return {map_.own().begin(), map_.own().end()};
  // Everything is on every rank; so that all of them write, each saves an even part.
  const FlatRange own = even_share(layout_.size(), comm_.rank(), comm_.size());
  if (own.size() == 0) return {};
  return {own};
}

void Engine::gather_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to, int root) {
  check_range(begin, count);
  const bool is_root = comm_.rank() == root;
  if (buffers_.extent(name) == Extent::full) {
    if (is_root) read_range(name, begin, count, to);
    return;
  }
  std::vector<float> gathered;
  std::vector<std::size_t> offsets;
  for (std::size_t b = 0; b < map_.buckets().size(); ++b) {
    const FlatLayout::Bucket& bucket = map_.buckets()[b];
    const std::int64_t from = std::max(begin, bucket.begin), until = std::min(begin + count, bucket.end);
    if (from >= until) continue;
    gathered.resize(static_cast<std::size_t>(until - from));
    offsets.clear();
    for (const std::size_t offset : map_.offsets(b))
      offsets.push_back(
          static_cast<std::size_t>(std::clamp(bucket.begin + static_cast<std::int64_t>(offset), from, until) - from));
    map_.for_own(from, until, [&](const ShardMap::Own& run) {
      read_range(name, run.begin, run.size(), gathered.data() + (run.begin - from));
    });
    comm_.all_gather({gathered.data(), gathered.size(), DType::f32, Memory::host}, offsets);
    if (is_root) std::ranges::copy(gathered, to + (from - begin));
  }
}

void Engine::read_range(const std::string& name, std::int64_t begin, std::int64_t count, float* to) {
  check_range(begin, count);
  settle_values();
  Device& d = *device_;
  const auto read = [&](const ShardMap::Own& run) {
    d.api.copy(to + (run.begin - begin), buffers_.at(name, run), static_cast<std::size_t>(run.size()) * sizeof(float),
               d.stream.ref);
  };
  if (buffers_.extent(name) == Extent::full) {
    read({{begin, begin + count}, begin});
  } else {
    std::int64_t found = 0;
    map_.for_own(begin, begin + count, [&](const ShardMap::Own& run) { found += run.size(); });
    require(found == count, "engine: a range of a shard that another rank holds");
    map_.for_own(begin, begin + count, read);
  }
  d.api.synchronize(d.stream.ref);
}

void Engine::write_range(const std::string& name, std::int64_t begin, std::int64_t count, const float* from) {
  check_range(begin, count);
  settle_values();
  Device& d = *device_;
  const std::int64_t end = begin + count;
  const auto for_held = [&](bool all, const auto& visit) {
    if (all)
      visit(ShardMap::Own{{begin, end}, begin});
    else
      map_.for_own(begin, end, visit);
  };
  for_held(replicated(name), [&](const ShardMap::Own& run) {
    d.api.copy(buffers_.at(name, run), from + (run.begin - begin), static_cast<std::size_t>(run.size()) * sizeof(float),
               d.stream.ref);
  });
  std::vector<std::byte> rounded;  // until the copies are done
  if (name == "master" && buffers_.param16() != nullptr) {
    const std::size_t width = size_of(options_.compute);
    rounded.resize(static_cast<std::size_t>(count) * width);
    round_to(options_.compute, from, static_cast<std::size_t>(count), rounded.data(), place_.threads);
    for_held(buffers_.extents().param16 == Extent::full && !one_copy_, [&](const ShardMap::Own& run) {
      const std::int64_t to = buffers_.extents().param16 == Extent::full ? run.begin : run.shard_begin;
      d.api.copy(static_cast<std::byte*>(buffers_.param16()) + static_cast<std::size_t>(to) * width,
                 rounded.data() + static_cast<std::size_t>(run.begin - begin) * width,
                 static_cast<std::size_t>(run.size()) * width, d.stream.ref);
    });
  }
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

std::size_t Engine::exchange_bytes_per_step() const {
  return sync_.bytes_per_step(options_.grad_accum) +
         (values_ == nullptr ? 0 : values_->bytes_per_step(options_.grad_accum));
}

std::size_t Engine::bytes() const {
  const Device& d = *device_;
  std::size_t total = buffers_.bytes() + d.steps.bytes() + d.batches.bytes() + d.reports->bytes() + d.loss->bytes() +
                      d.norm_sums->bytes();
  total += packed_weight_bytes_ + place_.kernels->context_bytes;
  if (leaf_sums_ != nullptr) total += leaf_sums_->bytes();
  if (window_memory_ != nullptr) total += window_memory_->bytes();
  if (values_ != nullptr) total += values_->bytes();
  for (const Arena* arena : {&d.workspace, &d.tiles, &d.tensors, &d.update_scratch, &d.norm_leaves, &d.norm_bad,
                             &d.groups, &d.state, &d.eval_loss})
    total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
