#include "engine/engine.hpp"

#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "engine/engine_device.hpp"

namespace lockstep::engine {
namespace {

std::vector<int> groups_or_default(const EngineOptions& options, const nn::Model& model) {
  if (!options.group_of.empty()) return options.group_of;
  return std::vector<int>(model.parameters().size(), 0);
}

}  // namespace

Engine::Engine(nn::Model& model, comm::Communicator& comm, Place place, EngineOptions options)
    : model_(model),
      comm_(comm),
      place_(place),
      options_(std::move(options)),
      groups_(static_cast<int>(options_.groups.size())),
      plan_(nn::plan(model, options_.micro_batch, options_.compute)),
      eval_plan_(nn::plan(model, options_.micro_batch, options_.compute, false)),
      layout_(model.parameters(), plan_, groups_or_default(options_, model)),
      optimizer_(optim::make_optimizer(options_.optimizer)),
      device_(std::make_unique<Device>(*this)),
      store_(layout_, plan_,
             {.master = reinterpret_cast<float*>(device_->master->data()),
              .param16 = device_->param16 ? device_->param16->data() : nullptr,
              .grad = reinterpret_cast<float*>(device_->grad->data()),
              .compute = options_.compute},
             [this](int slice) { sync_.slice_complete(slice, device_->stream); }),
      sync_(comm, layout_,
            {device_->grad->data(), static_cast<std::size_t>(layout_.size()), DType::f32, place.device->memory()},
            options_.bucket_elements) {
  require(groups_ >= 1, "engine: at least one parameter group is needed");
  require(options_.grad_accum >= 1, "engine: grad_accum must be at least 1");
  require(options_.schedule == nullptr || options_.schedule->groups() == options_.groups.size(),
          "engine: the schedule was made for another number of parameter groups");
  for (const sched::GroupInitial& group : options_.groups)
    user_values_.push_back({.lr = group.lr,
                            .beta1 = group.beta1,
                            .beta2 = group.beta2,
                            .momentum = group.momentum,
                            .weight_decay = group.weight_decay});
  write_state(initial_state(options_.scaler));
  initialise_parameters();
}

Engine::~Engine() = default;

void Engine::fill_record(StepRecord& record, std::int64_t first_index, std::int32_t count) const {
  record = {};
  record.step = attempted_;
  record.first_index = first_index;
  record.count = count;
  record.groups = groups_;
  std::vector<sched::GroupValues> values = user_values_;
  for (std::int32_t k = 0; k < count; ++k) {
    if (options_.schedule != nullptr) options_.schedule->values_at(first_index + k, values);
    for (int g = 0; g < groups_; ++g) {
      const sched::GroupValues& from = values[static_cast<std::size_t>(g)];
      record.rows()[k * groups_ + g] = {.lr = from.lr,
                                        .beta1 = from.beta1,
                                        .beta2 = from.beta2,
                                        .momentum = from.momentum,
                                        .weight_decay = from.weight_decay};
    }
  }
  if (attempted_ == options_.tamper_step)
    for (std::int32_t k = 0; k < count; ++k)
      record.rows()[k * groups_].lr = std::nextafter(record.rows()[k * groups_].lr, 1.0);
  record.digest = record_digest(record);
}

void Engine::begin_step() {
  Device& d = *device_;
  collect(false);
  if (attempted_ - d.collected >= static_cast<std::int64_t>(d.slots)) collect(true);

  const auto in_flight = static_cast<std::int32_t>(attempted_ - d.collected);
  StepRecord& record = d.record_slot(attempted_);
  fill_record(record, known_applied_, in_flight + 1);
  const std::size_t bytes = record_bytes(record.count, record.groups);
  const Buffer received = d.record_in(d.received, attempted_);
  d.api.copy(d.record_in(d.own, attempted_).data, &record, bytes, d.stream);
  if (comm_.rank() == 0) d.api.copy(received.data, &record, bytes, d.stream);
  d.record_pending = comm_.start_broadcast(received, 0, d.stream);

  d.api.fill_zero(d.grad->data(), d.grad->bytes(), d.stream);
  d.api.fill_zero(d.loss.data(), d.loss.bytes(), d.stream);
}

void Engine::upload(const data::HostBatch& batch, nn::Batch& to) {
  Device& d = *device_;
  const std::size_t tokens = batch.tokens.size() * sizeof(std::int32_t);
  const std::size_t features = batch.features.size() * sizeof(float);
  const std::size_t targets = batch.targets.size() * sizeof(std::int32_t);
  if (d.tokens.bytes() < tokens) d.tokens = Arena(d.api, tokens);
  if (d.targets.bytes() < targets) d.targets = Arena(d.api, targets);
  if (d.features.bytes() < features) d.features = Arena(d.api, features);

  const std::size_t slot = d.next_batch++ % d.batch_slots;
  const std::size_t bytes = tokens + features + targets;
  d.pinned_batches.resize(d.batch_slots);
  auto& pinned = d.pinned_batches[slot];
  if (pinned != nullptr) d.api.synchronize(d.batch_copied[slot]);
  if (pinned == nullptr || pinned->size() < bytes) pinned = std::make_unique<Pinned<std::byte>>(d.api, bytes);
  std::byte* at = pinned->data();
  const auto move = [&](const Arena& arena, const void* from, std::size_t n) {
    if (n == 0) return;
    std::memcpy(at, from, n);
    d.api.copy(arena.data(), at, n, d.stream);
    at += n;
  };
  move(d.tokens, batch.tokens.data(), tokens);
  move(d.targets, batch.targets.data(), targets);
  move(d.features, batch.features.data(), features);
  d.api.record(d.batch_copied[slot], d.stream);

  to = {.shape = {batch.batch, batch.length},
        .tokens = Device::at<const std::int32_t>(d.tokens),
        .features = Device::at<const float>(d.features),
        .targets = Device::at<const std::int32_t>(d.targets),
        .target_count = batch.target_count};
}

nn::ContextOptions Engine::context_options(nn::Mode mode) {
  Device& d = *device_;
  nn::ContextOptions options;
  options.exec = {.table = place_.kernels,
                  .device = place_.device,
                  .stream = d.stream,
                  .threads = place_.threads,
                  .context = d.context.get()};
  options.compute = options_.compute;
  options.store = &store_;
  options.mode = mode;
  return options;
}

void Engine::forward(const data::HostBatch& batch) {
  require(!pass_.has_value(), "engine: forward twice without backward in between");
  require(micro_ < options_.grad_accum, "engine: step() is due: all micro-batches of this step have run");
  require(nn::BatchShape({batch.batch, batch.length}) == options_.micro_batch,
          "engine: the batch's shape differs from options.micro_batch");
  if (micro_ == 0) begin_step();

  Device& d = *device_;
  nn::Batch on_device;
  upload(batch, on_device);
  store_.begin_micro_batch();
  sync_.begin_micro_batch(micro_ + 1 == options_.grad_accum && no_sync_ == 0);

  nn::ContextOptions options = context_options(nn::Mode::train);
  nn::Workspace& workspace = workspace_.emplace(d.workspace.data(), d.workspace.bytes());
  options.workspace = &workspace;
  options.expected = &plan_.ops;
  options.loss = Device::at<LossSum>(d.loss);
  options.state = Device::at<const StepState>(d.state);
  options.grad_accum = options_.grad_accum;
  if (comm_.size() > 1 && comm_.capabilities().needs_progress) options.after_op = [this] { comm_.progress(); };
  pass_.emplace(std::move(options));
  model_.loss(*pass_, on_device);
}

void Engine::backward() {
  require(pass_.has_value(), "engine: backward without forward");
  pass_->backward();
  pass_.reset();
  ++micro_;
}

void Engine::step() {
  require(micro_ == options_.grad_accum,
          "engine: step before all micro-batches of the step have run forward and backward");
  Device& d = *device_;
  const Exec exec = context_options(nn::Mode::train).exec;
  const int rank = comm_.rank();
  auto* reports = Device::at<StepReport>(d.reports);
  const GradSources grad = {.source = {d.grad->data()}, .count = 1, .dtype = DType::f32};

  sync_.finish(d.stream);
  kernels::grad_norm(exec, {.grad = grad,
                            .begin = 0,
                            .count = static_cast<std::uint64_t>(layout_.size()),
                            .chunk_sums = Device::at<double>(d.chunk_sums),
                            .chunk_bad = Device::at<std::int64_t>(d.chunk_bad),
                            .loss = Device::at<const LossSum>(d.loss),
                            .stop = stop_requested_ ? 1 : 0,
                            .report = reports + rank});
  comm_.wait(comm_.start_all_gather(d.buffer(d.reports), d.report_offsets, d.stream), d.stream);
  comm_.wait(d.record_pending, d.stream);
  kernels::decide(exec, {.record = static_cast<const StepRecord*>(d.record_in(d.received, attempted_).data),
                         .own = static_cast<const StepRecord*>(d.record_in(d.own, attempted_).data),
                         .reports = reports,
                         .world = comm_.size(),
                         .replicated = 1,
                         .bias_correction = options_.optimizer.bias_correction ? 1 : 0,
                         .groups = groups_,
                         .clip = options_.gradient_clipping,
                         .grad_divisor = static_cast<double>(comm_.size()),
                         .scaler = options_.scaler,
                         .state = Device::at<StepState>(d.state),
                         .group_steps = Device::at<GroupStep>(d.groups),
                         .result = Device::at<StepResult>(d.result)});
  std::vector<float*> moments;
  for (const auto& arena : d.moments) moments.push_back(reinterpret_cast<float*>(arena->data()));
  optimizer_->update(exec,
                     {.master = reinterpret_cast<float*>(d.master->data()),
                      .param16 = d.param16 ? d.param16->data() : nullptr,
                      .param16_dtype = options_.compute,
                      .grad = grad,
                      .tiles = Device::at<const Tile>(d.tiles),
                      .tile_count = d.tile_count,
                      .groups = Device::at<const GroupStep>(d.groups),
                      .state = Device::at<const StepState>(d.state)},
                     moments);
  store_.values_changed();

  const std::size_t slot = static_cast<std::size_t>(attempted_) % d.slots;
  d.api.copy(&d.pinned_results[slot], d.result.data(), sizeof(StepResult), d.stream);
  d.api.record(d.result_ready[slot], d.stream);
  ++attempted_;
  micro_ = 0;
  collect(d.api.immediate());
}

LossSum Engine::evaluate(const data::HostBatch& batch) {
  require(!pass_.has_value(), "engine: evaluate between forward and backward");
  Device& d = *device_;
  nn::Batch on_device;
  upload(batch, on_device);
  d.api.fill_zero(d.eval_loss.data(), d.eval_loss.bytes(), d.stream);
  nn::Workspace workspace(d.workspace.data(), d.workspace.bytes());
  nn::ContextOptions options = context_options(nn::Mode::evaluate);
  options.workspace = &workspace;
  options.loss = Device::at<LossSum>(d.eval_loss);
  nn::Context context(std::move(options));
  model_.loss(context, on_device);
  LossSum result;
  d.api.copy(&result, d.eval_loss.data(), sizeof(LossSum), d.stream);
  d.api.synchronize(d.stream);
  return result;
}

std::vector<float> Engine::last_logits(const data::HostBatch& batch) {
  require(!pass_.has_value(), "engine: last_logits between forward and backward");
  Device& d = *device_;
  nn::Batch on_device;
  upload(batch, on_device);
  nn::Workspace workspace(d.workspace.data(), d.workspace.bytes());
  nn::ContextOptions options = context_options(nn::Mode::evaluate);
  options.workspace = &workspace;
  nn::Context context(std::move(options));
  const nn::Tensor logits = model_.logits(context, on_device);
  const auto classes = static_cast<std::size_t>(model_.classes());
  const auto stride = static_cast<std::size_t>(logits.shape().last());
  std::vector<float> result(static_cast<std::size_t>(batch.batch) * classes);
  std::vector<std::byte> row(classes * size_of(logits.dtype()));
  for (std::int64_t b = 0; b < batch.batch; ++b) {
    const auto at = static_cast<std::size_t>(b * batch.length + batch.length - 1) * stride;
    d.api.copy(row.data(), logits.as<std::byte>() + at * size_of(logits.dtype()), row.size(), d.stream);
    d.api.synchronize(d.stream);
    for (std::size_t c = 0; c < classes; ++c) {
      float value = 0;
      switch (logits.dtype()) {
        case DType::bf16:
          value = static_cast<float>(reinterpret_cast<const bf16*>(row.data())[c]);
          break;
        case DType::f16:
          value = static_cast<float>(reinterpret_cast<const f16*>(row.data())[c]);
          break;
        default:
          value = reinterpret_cast<const float*>(row.data())[c];
      }
      result[static_cast<std::size_t>(b) * classes + c] = value;
    }
  }
  return result;
}

}  // namespace lockstep::engine
