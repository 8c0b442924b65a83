#include "engine/engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace lockstep::engine {
namespace {

std::vector<int> groups_or_default(const EngineOptions& options, const nn::Model& model) {
  if (!options.group_of.empty()) return options.group_of;
  return std::vector<int>(model.parameters().size(), 0);
}

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

}  // namespace

/// Everything that lives on the device or is pinned for it.
struct Engine::Device {
  Device(Engine& engine)
      : api(*engine.place_.device),
        context(*engine.place_.kernels, api),
        stream(api.make_stream()),
        slots(api.immediate() ? 1 : static_cast<std::size_t>(engine.options_.max_in_flight) + 1),
        record_size(round_up(record_bytes(static_cast<std::int32_t>(slots), engine.groups_), 64)),
        pinned_records(api, slots * record_size),
        pinned_results(api, slots) {
    comm::Communicator& comm = engine.comm_;
    const auto elements = static_cast<std::size_t>(engine.layout_.size());
    const nn::BatchShape& shape = engine.options_.micro_batch;
    master = comm.make_arena(api, elements * sizeof(float));
    grad = comm.make_arena(api, elements * sizeof(float));
    if (engine.options_.compute != DType::f32)
      param16 = comm.make_arena(api, elements * size_of(engine.options_.compute));
    for (std::size_t i = 0; i < engine.optimizer_->moments().size(); ++i)
      moments.push_back(comm.make_arena(api, elements * sizeof(float)));

    const std::vector<Tile> tile_list = engine.layout_.tiles();
    tile_count = static_cast<std::uint32_t>(tile_list.size());
    tiles = Arena(api, tile_list.size() * sizeof(Tile));
    api.copy(tiles.data(), tile_list.data(), tiles.bytes(), stream);
    api.synchronize(stream);

    workspace = Arena(api, std::max(engine.plan_.train_bytes, engine.eval_plan_.train_bytes));
    const std::size_t chunks = (elements + norm_chunk - 1) / norm_chunk;
    chunk_sums = Arena(api, chunks * sizeof(double));
    chunk_bad = Arena(api, chunks * sizeof(std::int64_t));
    groups = Arena(api, static_cast<std::size_t>(engine.groups_) * sizeof(GroupStep));
    state = Arena(api, sizeof(StepState));
    loss = Arena(api, sizeof(LossSum));
    eval_loss = Arena(api, sizeof(LossSum));
    received = Arena(api, slots * record_size);
    own = Arena(api, slots * record_size);
    reports = Arena(api, static_cast<std::size_t>(comm.size()) * sizeof(StepReport));
    result = Arena(api, sizeof(StepResult));
    for (int r = 0; r <= comm.size(); ++r) report_offsets.push_back(static_cast<std::size_t>(r) * sizeof(StepReport));
    for (std::size_t i = 0; i < slots; ++i) result_ready.push_back(api.make_event());

    const auto positions = static_cast<std::size_t>(shape.batch * shape.length);
    tokens = Arena(api, positions * sizeof(std::int32_t));
    targets = Arena(api, positions * sizeof(std::int32_t));
    batch_slots = api.immediate() ? 1 : 4;
    for (std::size_t i = 0; i < batch_slots; ++i) batch_copied.push_back(api.make_event());
  }

  ~Device() {
    // Work in flight still refers to this memory.
    try {
      api.synchronize(stream);
    } catch (const std::exception&) {
      // The device is already in an error state; its memory goes with the process.
    }
    for (const EventRef event : result_ready) api.destroy(event);
    for (const EventRef event : batch_copied) api.destroy(event);
    api.destroy(stream);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] StepRecord& record_slot(std::int64_t step) {
    return *reinterpret_cast<StepRecord*>(pinned_records.data() + static_cast<std::size_t>(step) % slots * record_size);
  }
  /// One step's record in device memory; as many as steps can be in flight.
  [[nodiscard]] Buffer record_in(const Arena& records, std::int64_t step) const {
    return {records.data() + static_cast<std::size_t>(step) % slots * record_size, record_size, DType::u8,
            api.memory()};
  }
  [[nodiscard]] Buffer buffer(const Arena& arena) const {
    return {arena.data(), arena.bytes(), DType::u8, api.memory()};
  }
  template <class T>
  [[nodiscard]] static T* at(const Arena& arena) {
    return reinterpret_cast<T*>(arena.data());
  }

  DeviceApi& api;
  kernels::Context context;
  StreamRef stream;
  std::size_t slots;        ///< steps that may be in flight, plus one
  std::size_t record_size;  ///< bytes
  Pinned<std::byte> pinned_records;
  Pinned<StepResult> pinned_results;
  std::unique_ptr<comm::FlatArena> master, grad, param16;
  std::vector<std::unique_ptr<comm::FlatArena>> moments;
  Arena workspace, tiles, chunk_sums, chunk_bad, groups, state, loss, eval_loss;
  Arena received, own, reports, result;
  Arena tokens, targets, features;
  std::uint32_t tile_count = 0;
  std::vector<std::size_t> report_offsets;
  std::vector<EventRef> result_ready;

  std::size_t batch_slots = 1;
  std::size_t next_batch = 0;
  std::vector<EventRef> batch_copied;
  std::vector<std::unique_ptr<Pinned<std::byte>>> pinned_batches;

  comm::Pending record_pending = {};
  std::vector<std::byte> desync_records;  ///< rank 0's and this rank's, of the step at which they differed
  std::int64_t collected = 0;             ///< steps whose result was read
};

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

void Engine::collect(bool block) {
  Device& d = *device_;
  while (d.collected < attempted_) {
    const std::size_t slot = static_cast<std::size_t>(d.collected) % d.slots;
    if (block)
      d.api.synchronize(d.result_ready[slot]);
    else if (!d.api.done(d.result_ready[slot]))
      return;
    block = false;  // one is enough; the rest only if they are done
    finished_.push_back(d.pinned_results[slot]);
    known_applied_ = finished_.back().applied;
    if (finished_.back().halt == Halt::desync && d.desync_records.empty()) {
      // Now: a later step uses the records' memory again.
      d.desync_records.resize(2 * d.record_size);
      const std::size_t at = slot * d.record_size;
      d.api.copy(d.desync_records.data(), d.received.data() + at, d.record_size, d.stream);
      d.api.copy(d.desync_records.data() + d.record_size, d.own.data() + at, d.record_size, d.stream);
      d.api.synchronize(d.stream);
    }
    ++d.collected;
  }
}

std::int64_t Engine::result_delay() const {
  return place_.device->immediate() ? 0 : static_cast<std::int64_t>(device_->slots);
}

void Engine::drain() {
  while (device_->collected < attempted_) collect(true);
}

std::vector<StepResult> Engine::results() {
  collect(false);
  std::vector<StepResult> ready;
  while (!finished_.empty()) {
    const StepResult result = finished_.front();
    if (result.halt != Halt::none) {
      if (ready.empty()) raise(result);
      break;  // what finished before goes out first
    }
    last_scales_.push_back(result.scale);
    if (last_scales_.size() > 8) last_scales_.erase(last_scales_.begin());
    ready.push_back(result);
    finished_.erase(finished_.begin());
  }
  return ready;
}

void Engine::raise(const StepResult& result) {
  Device& d = *device_;
  if (result.halt == Halt::desync) {
    // An aligned copy: StepRecord asks for 64 bytes.
    const auto rows_at = [&](std::size_t offset) {
      std::vector<StepRow> rows(static_cast<std::size_t>(groups_));
      std::memcpy(rows.data(), d.desync_records.data() + offset + sizeof(StepRecord), rows.size() * sizeof(StepRow));
      return rows;
    };
    const std::vector<StepRow> theirs = rows_at(0), ours = rows_at(d.record_size);
    std::string text;
    for (int g = 0; g < groups_; ++g) {
      const StepRow& a = theirs[static_cast<std::size_t>(g)];
      const StepRow& b = ours[static_cast<std::size_t>(g)];
      const auto compare = [&](const char* name, double x, double y) {
        if (x != y)
          text +=
              fmt::format("\n  group {} {}: rank 0 broadcast {}, rank {} evaluated {}", g, name, x, comm_.rank(), y);
      };
      compare("lr", a.lr, b.lr);
      compare("beta1", a.beta1, b.beta1);
      compare("beta2", a.beta2, b.beta2);
      compare("momentum", a.momentum, b.momentum);
      compare("weight_decay", a.weight_decay, b.weight_decay);
    }
    fail(ErrorKind::desync,
         "step {}: rank {} evaluates another schedule than rank 0; the update was not applied.{}\n"
         "  All ranks must run the same binary with the same job file. Compare `lockstep lr JOB` on both hosts.",
         result.step, comm_.rank(), text.empty() ? "\n  (step counters or digests differ)" : text);
  }
  const std::string parameter = parameter_at(result.first_bad);
  if (result.halt == Halt::scale_floor) {
    std::string scales;
    for (const double scale : last_scales_) scales += fmt::format("{} ", scale);
    fail(ErrorKind::diverged,
         "step {}: the gradient is not finite even at the smallest loss scale {} (fp16.min_loss_scale).\n"
         "  first non-finite gradient: {}\n  last loss scales: {}\n"
         "  Try: a lower lr or longer warm-up; gradient_clipping; bf16 instead of fp16; a look at the data around this "
         "step.",
         result.step, options_.scaler.min_scale, parameter, scales);
  }
  fail(ErrorKind::diverged,
       "step {}: the gradient is not finite.\n  first non-finite gradient: {}\n  loss: {}\n"
       "  Try: a lower lr or longer warm-up; gradient_clipping; a look at the data around this step.",
       result.step, parameter, result.loss);
}

std::string Engine::parameter_at(std::int64_t flat_index) const {
  const FlatLayout::Slice* slice = flat_index < 0 ? nullptr : layout_.find(flat_index);
  if (slice == nullptr) return "(the sum of squares overflowed; every value is finite)";
  const nn::ParameterSpec& spec = model_.parameters()[static_cast<std::size_t>(slice->param)];
  return fmt::format("{}[{}]", spec.name, flat_index - slice->begin);
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
