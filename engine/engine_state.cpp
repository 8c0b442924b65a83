// The engine's state as its owner sees it: initial values, lr, buffers for checkpoints.
#include <algorithm>

#include "core/error.hpp"
#include "core/rng.hpp"
#include "engine/engine.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {

void Engine::initialise_parameters() {
  std::vector<float> values(static_cast<std::size_t>(layout_.size()), 0.0F);
  for (const FlatLayout::Slice& slice : layout_.slices()) {
    const nn::ParameterSpec& spec = model_.parameters()[static_cast<std::size_t>(slice.param)];
    float* to = values.data() + slice.begin;
    const std::int64_t n = spec.elements();
    if (spec.init == nn::Init::ones) std::fill(to, to + n, 1.0F);
    if (spec.init != nn::Init::normal) continue;
    const auto lane = static_cast<std::uint32_t>(slice.param);
#pragma omp parallel for num_threads(place_.threads) schedule(static)
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = static_cast<float>(spec.stddev *
                                 normal_at(options_.seed, RngStream::init, lane, static_cast<std::uint64_t>(i)));
  }
  write_buffer("master", values);
}

std::vector<double> Engine::lr() const {
  std::vector<sched::GroupValues> values = user_values_;
  if (options_.schedule != nullptr) options_.schedule->values_at(known_applied_, values);
  std::vector<double> result;
  for (const sched::GroupValues& value : values) result.push_back(value.lr);
  return result;
}

void Engine::set_lr(const std::vector<double>& lr) {
  require(
      options_.schedule == nullptr,
      "engine: set_lr on a managed schedule; the engine steps it once per update by itself. Make the engine without a "
      "schedule to set lr by hand");
  require(lr.size() == user_values_.size(), "engine: set_lr needs one value per parameter group");
  for (std::size_t g = 0; g < lr.size(); ++g) user_values_[g].lr = lr[g];
}

std::vector<std::string> Engine::buffer_names() const {
  std::vector<std::string> names = {"master"};
  for (const std::string& moment : optimizer_->moments()) names.push_back(moment);
  return names;
}

std::vector<float> Engine::read_buffer(const std::string& name) {
  Device& d = *device_;
  const std::vector<std::string> names = buffer_names();
  const auto found = std::find(names.begin(), names.end(), name);
  require(found != names.end(), "engine: read_buffer of an unknown buffer");
  const std::size_t index = static_cast<std::size_t>(found - names.begin());
  const std::byte* from = index == 0 ? d.master->data() : d.moments[index - 1]->data();
  std::vector<float> values(static_cast<std::size_t>(layout_.size()));
  d.api.copy(values.data(), from, values.size() * sizeof(float), d.stream);
  d.api.synchronize(d.stream);
  return values;
}

void Engine::write_buffer(const std::string& name, const std::vector<float>& values) {
  Device& d = *device_;
  const std::vector<std::string> names = buffer_names();
  const auto found = std::find(names.begin(), names.end(), name);
  require(found != names.end(), "engine: write_buffer of an unknown buffer");
  require(values.size() == static_cast<std::size_t>(layout_.size()), "engine: write_buffer with another layout's size");
  const std::size_t index = static_cast<std::size_t>(found - names.begin());
  std::byte* to = index == 0 ? d.master->data() : d.moments[index - 1]->data();
  d.api.copy(to, values.data(), values.size() * sizeof(float), d.stream);
  if (index == 0 && d.param16 != nullptr)
    kernels::cast(context_options(nn::Mode::evaluate).exec, {.from = d.master->data(),
                                                             .from_dtype = DType::f32,
                                                             .to = d.param16->data(),
                                                             .to_dtype = options_.compute,
                                                             .count = values.size()});
  d.api.synchronize(d.stream);
  store_.values_changed();
}

StepState Engine::read_state() {
  drain();
  Device& d = *device_;
  StepState state;
  d.api.copy(&state, d.state.data(), sizeof(StepState), d.stream);
  d.api.synchronize(d.stream);
  return state;
}

void Engine::write_state(const StepState& state) {
  drain();
  Device& d = *device_;
  d.api.copy(d.state.data(), &state, sizeof(StepState), d.stream);
  d.api.synchronize(d.stream);
  attempted_ = state.attempted;
  d.collected = state.attempted;
  known_applied_ = state.applied;
  finished_.clear();
}

std::size_t Engine::bytes() const {
  const Device& d = *device_;
  std::size_t total = d.master->bytes() + d.grad->bytes() + d.workspace.bytes();
  if (d.param16 != nullptr) total += d.param16->bytes();
  for (const auto& arena : d.moments) total += arena->bytes();
  return total;
}

}  // namespace lockstep::engine
