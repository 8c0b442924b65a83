#include "engine/engine.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

#include "core/error.hpp"
#include "engine/engine_device.hpp"
#include "nn/ops.hpp"

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
      plan_(nn::plan(model, *place.kernels, options_.micro_batch, options_.compute)),
      eval_plan_(nn::plan(model, *place.kernels, options_.micro_batch, options_.compute, false)),
      has_accuracy_(std::ranges::any_of(eval_plan_.ops, [](const auto& op) { return op.name == nn::accuracy_op; })),
      layout_(model.parameters(), plan_, groups_or_default(options_, model)),
      one_copy_(options_.one_copy && options_.zero_stage < 3 && comm.size() > 1 && place.device->immediate() &&
                comm.capabilities().shared_address_space),
      stage_(comm.size() == 1 ? 0 : std::max(options_.zero_stage, one_copy_ ? 1 : 0)),
      map_(layout_, options_.bucket_elements, optim::make_optimizer(options_.optimizer)->granularity(), stage_ > 0,
           comm.rank(), comm.size()),
      optimizer_(optim::make_optimizer(options_.optimizer, map_.tensors(layout_, model.parameters()))),
      buffers_(comm, *place.device, layout_, map_, options_.compute, *optimizer_,
               BufferExtents::of(stage_, options_.compute, options_.leaves > 0, one_copy_)),
      device_(std::make_unique<Device>(*this)),
      leaf_sums_(options_.leaves == 0
                     ? nullptr
                     : std::make_unique<LeafSums>(comm, exec(), buffers_.grad(), layout_.size(), options_.leaves)),
      windows_(buffers_.extents().grad == Extent::full
                   ? nullptr
                   : std::make_unique<GradientWindows>(unit_elements(layout_), plan_.unit_events)),
      window_memory_(windows_ == nullptr ? nullptr
                                         : comm.make_arena(*place.device, static_cast<std::size_t>(windows_->elements) *
                                                                              sizeof(float))),
      sync_(comm, device_->graphs, layout_, map_, plan_.grad_uses,
            windows_ == nullptr
                ? Buffer{buffers_.grad(), static_cast<std::size_t>(layout_.size()), DType::f32, place.device->memory()}
                : Buffer{},
            leaf_sums_.get(), scale_before_sum(), gradient_windows()),
      values_(make_values()),
      store_(
          layout_, buffers_, device_->stream.ref, values_.get(), windows_.get(),
          [this](int slice) { contributed(slice); }, [this](int unit) { sync_.acquired(unit); },
          [this](int unit) { sync_.released(unit, device_->stream.ref); }) {
  require(options_.zero_stage >= 0 && options_.zero_stage <= 3, "engine: ZeRO has stages 0 to 3");
  require(groups_ >= 1, "engine: at least one parameter group is needed");
  require(options_.grad_accum >= 1, "engine: grad_accum must be at least 1");
  require(leaf_sums_ == nullptr || leaf_sums_->own().size() == options_.grad_accum,
          "engine: grad_accum is not this rank's share of the leaves");
  require(leaf_sums_ == nullptr || !options_.captured, "engine: captured steps have no leaves");
  require(options_.gradient_predivide_factor > 0, "engine: gradient_predivide_factor must be above 0");
  require(leaf_sums_ == nullptr || gradient_factor() == 1, "engine: gradients of leaves are divided after their sum");
  require(options_.schedule == nullptr || options_.schedule->groups() == options_.groups.size(),
          "engine: the schedule was made for another number of parameter groups");
  user_values_.assign(options_.groups.begin(), options_.groups.end());
  if (options_.schedule != nullptr) metric_state_ = options_.schedule->metric_state();
  std::vector<MatmulArgs> products = plan_.weight_products;
  products.insert(products.end(), eval_plan_.weight_products.begin(), eval_plan_.weight_products.end());
  packed_weight_bytes_ = kernels::packed_weight_bytes(exec(), products);
  write_state(initial_state(options_.scaler));
  initialise_parameters();
}

// What is destroyed before the device's part is memory of work in flight too.
Engine::~Engine() { (void)device_->api.try_synchronize(device_->stream.ref); }

void Engine::poison_gradient(nn::ParamId param) {
  require(param >= 0 && static_cast<std::size_t>(param) < model_.parameters().size(),
          "engine: poison_gradient of no parameter");
  if (options_.captured)
    fail(ErrorKind::config,
         "a NaN was asked for in a gradient (LOCKSTEP_FAULT), but steps are captured and replayed as they are; with "
         "run.cuda_graph: off it can be put there");
  poisoned_ = param;
}

/// To the gradient of a slice.
void Engine::contributed(int slice) {
  // In the memory of the program: the copy may be done later than the call.
  static constexpr float bad = std::numeric_limits<float>::quiet_NaN();
  if (poisoned_ >= 0 && layout_.slice_index(poisoned_) == slice) {
    device_->api.copy(store_.grad(poisoned_).data, &bad, sizeof bad, device_->stream.ref);
    poisoned_ = -1;
  }
  sync_.contributed(slice, device_->stream.ref);
}

Engine::NoSync::NoSync(Engine& engine) : engine_(engine) {
  require(!engine.sync_.has_windows(),
          "engine: no_sync in ZeRO stage 2 or 3, where gradients are summed over ranks after every micro-batch");
  ++engine_.no_sync_;
}

SyncWindows Engine::gradient_windows() {
  if (windows_ == nullptr) return {};
  const Buffer memory{window_memory_->data(), static_cast<std::size_t>(windows_->elements), DType::f32,
                      place_.device->memory()};
  const auto add = [this](Buffer from, std::int64_t shard_begin, bool first) {
    float* const to = buffers_.grad() + shard_begin;
    if (first)
      device_->api.copy(to, from.data, from.bytes(), device_->stream.ref);
    else
      kernels::axpy(exec(), {.x = from.data, .y = to, .count = from.count});
  };
  const auto clear = [this](Buffer gap) { device_->api.fill_zero(gap.data, gap.bytes(), device_->stream.ref); };
  return {.plan = windows_.get(), .memory = memory, .add = add, .clear = clear};
}

std::unique_ptr<UnitValues> Engine::make_values() {
  if (stage_ == 0) return nullptr;
  const Buffer values = buffers_.values(place_.device->memory());
  if (one_copy_) return make_common_values(comm_, *place_.device, device_->graphs, layout_, values);
  if (stage_ < 3) return make_refreshed_values(comm_, device_->graphs, layout_, map_, values, plan_.unit_events);
  return make_gathered_values(comm_, *place_.device, device_->graphs, layout_, map_, values,
                              {&plan_.unit_events, &eval_plan_.unit_events});
}

double Engine::gradient_factor() const {
  if (comm_.size() == 1) return 1;
  return options_.prescale_gradients ? 1.0 / comm_.size() : 1 / options_.gradient_predivide_factor;
}

double Engine::gradient_divisor() const {
  if (options_.leaves > 0) return static_cast<double>(options_.leaves);
  if (comm_.size() == 1 || options_.prescale_gradients) return 1;
  return comm_.size() / options_.gradient_predivide_factor;
}

std::function<void(Buffer)> Engine::scale_before_sum() const {
  const double factor = gradient_factor();
  if (factor == 1) return {};
  return [this, factor](Buffer part) {
    kernels::scale(exec(), {.a = factor, .y = part.data, .dtype = part.dtype, .count = part.count});
  };
}

void Engine::fill_record(StepRecord& record, std::int64_t first_index, std::int32_t count) const {
  record = {};
  record.step = device_->steps.attempted();
  record.first_index = first_index;
  record.count = count;
  record.groups = groups_;
  for (std::int32_t k = 0; k < count; ++k) {
    const std::span<StepValues> row(record.rows() + k * groups_, static_cast<std::size_t>(groups_));
    values_of(first_index + k, row);
  }
  record.digest = record_digest(record);
}

/// Everything that the step needs from the host goes on its way.
void Engine::begin_step() {
  StepQueue& steps = device_->steps;
  collect(false);
  while (steps.full()) collect(true);
  StepInputs& inputs = steps.inputs();
  // Ranks see results arrive at different moments, but their records must be equal: each starts from the step whose
  // result all of them have by now, whatever else they know.
  const std::int64_t step = steps.attempted(), most = steps.most_in_flight(), since = step - restarted_at_;
  const std::int64_t applied =
      since < most ? applied_at_restart_ : applied_after_[static_cast<std::size_t>(step % most)];
  fill_record(inputs.record(), applied, static_cast<std::int32_t>(std::min(since, most - 1)) + 1);
  inputs.own_digest = inputs.record().digest;
  inputs.stop = (stop_requested_ ? wish_to_stop : save_requested_ ? wish_to_save : 0) | (busy_ ? still_busy : 0);
  save_requested_ = false;
  steps.send();
}

Exec Engine::exec() const {
  return {.table = place_.kernels,
          .device = place_.device,
          .stream = device_->stream.ref,
          .threads = place_.threads,
          .context = device_->context.get(),
          .invariant = options_.leaves > 0,
          .tune = options_.tune && options_.leaves == 0};
}

nn::ContextOptions Engine::context_options(nn::Mode mode) {
  nn::ContextOptions options;
  options.exec = exec();
  options.compute = options_.compute;
  options.store = &store_;
  options.seed = options_.seed;
  options.mode = mode;
  return options;
}

void Engine::forward(const data::HostBatch& batch) {
  require(!in_pass_, "engine: forward twice without backward in between");
  require(micro_ < options_.grad_accum, "engine: step() is due: all micro-batches of this step have run");
  require(nn::BatchShape({batch.batch, batch.length}) == options_.micro_batch,
          "engine: the batch's shape differs from options.micro_batch");
  if (micro_ == 0) begin_step();
  batch_ = device_->batches.upload(batch);
  in_pass_ = true;
  if (!options_.captured) forward_pass(micro_);
}

void Engine::backward() {
  require(in_pass_, "engine: backward without forward");
  if (!options_.captured)
    backward_pass();
  else if (micro_ + 1 < options_.grad_accum)
    device_->graphs.run(micro_ == 0 ? MicroStep::first : MicroStep::further, [this] {
      forward_pass(micro_);
      backward_pass();
    });
  in_pass_ = false;
  ++micro_;
}

void Engine::step() {
  require(micro_ == options_.grad_accum,
          "engine: step before all micro-batches of the step have run forward and backward");
  if (!options_.captured)
    update();
  else
    device_->graphs.run(MicroStep::last, [this] {
      forward_pass(micro_ - 1);
      backward_pass();
      update();
    });
  store_.values_changed();
  device_->steps.issue();
  micro_ = 0;
  collect(device_->api.immediate());
}

// From here to evaluate: what a captured step keeps. Whatever changes from step to step is read on the device.

void Engine::forward_pass(int micro) {
  Device& d = *device_;
  const bool last = micro + 1 == options_.grad_accum;
  if (windows_ != nullptr)
    store_.begin_sum(reinterpret_cast<float*>(window_memory_->data()));
  else if (micro == 0)
    store_.begin_sum(buffers_.grad());
  if (micro == 0) {
    join_longer_steps();
    d.api.fill_zero(d.loss->data(), d.loss->bytes(), d.stream.ref);
  }
  if (leaf_sums_ != nullptr) store_.begin_sum(leaf_sums_->of(micro));
  // Under the last passes, where a captured step can begin and end it.
  if (last && watch_ == nullptr) d.graphs.outside([this] { device_->steps.exchange(); });
  sync_.begin_micro_batch(micro, last && (no_sync_ == 0 || options_.captured));
  if (values_ != nullptr) values_->begin_pass(plan_.unit_events, d.stream.ref);

  nn::ContextOptions options = context_options(nn::Mode::train);
  nn::Workspace& workspace = workspace_.emplace(d.workspace.data(), d.workspace.bytes());
  options.workspace = &workspace;
  options.expected = &plan_.ops;
  options.probe = options_.probe;
  options.watch = watch_;
  options.loss = d.losses() + (leaf_sums_ != nullptr ? leaf_sums_->own().begin + micro : 0);
  options.state = Device::at<const StepState>(d.state);
  if (comm_.size() > 1 && comm_.capabilities().needs_progress && !d.graphs.capturing())
    options.after_op = [this] {
      const ProbeScope scope(options_.probe, Activity::communication, "progress");
      comm_.progress();
    };
  pass_.emplace(std::move(options));
  model_.loss(*pass_, batch_);
}

/// Ranks may own unequal numbers of leaves, but gather parameters together: who has fewer walks through the passes that
/// others have more first, without computing, so that all come to their last pass at once.
void Engine::join_longer_steps() {
  if (!gathers() || leaf_sums_ == nullptr) return;
  std::int64_t most = 0;
  for (int r = 0; r < comm_.size(); ++r)
    most = std::max(most, sum_tree::share(options_.leaves, r, comm_.size()).size());
  const StreamRef stream = device_->stream.ref;
  for (std::int64_t pass = options_.grad_accum; pass < most; ++pass) {
    values_->begin_pass(plan_.unit_events, stream);
    for (const nn::UnitEvent& event : plan_.unit_events) {
      if (event.acquire)
        values_->acquire(event.unit, event.phase, stream);
      else
        values_->release(event.unit, event.phase);
    }
  }
}

void Engine::backward_pass() {
  pass_->backward();
  pass_.reset();
  sync_.end_micro_batch(device_->stream.ref);
}

/// Reduce, decide, update.
void Engine::update() {
  Device& d = *device_;
  const Exec exec = this->exec();
  const GradSources grad = {
      .source = {buffers_.grad()}, .count = 1, .dtype = DType::f32, .extent = buffers_.extents().grad};

  sync_.finish(d.stream.ref);
  const auto owned = static_cast<double>(map_.sharded() ? map_.shard_elements() : layout_.size());
  if (map_.sharded()) d.api.fill_zero(d.norm_sums->data(), d.norm_sums->bytes(), d.stream.ref);
  {
    const ProbeScope scope(options_.probe, Activity::optimizer, "gradient norm", 2 * owned, 4 * owned);
    kernels::grad_leaf_sums(exec, {.grad = grad,
                                   .leaves = Device::at<const NormLeaf>(d.norm_leaves),
                                   .leaf_count = d.norm_leaf_count,
                                   .sums = d.norms(),
                                   .bad = Device::at<std::int64_t>(d.norm_bad)});
  }
  // Each leaf's sum comes from its owner; the others add zero to it, which changes no bit.
  if (map_.sharded())
    d.graphs.outside([this] {
      Device& device = *device_;
      const Buffer sums{device.norms(), device.norm_count, DType::f64, device.api.memory()};
      comm_.wait(comm_.start_all_reduce(sums, comm::Reduce::sum, device.stream.ref), device.stream.ref);
    });
  kernels::grad_norm(exec, {.sums = d.norms(),
                            .sum_count = static_cast<std::uint32_t>(d.norm_count),
                            .bad = Device::at<const std::int64_t>(d.norm_bad),
                            .bad_count = d.norm_leaf_count,
                            .loss = leaf_sums_ != nullptr ? nullptr : d.losses(),
                            .inputs = d.steps.on_device(),
                            .report = d.all_reports() + comm_.rank()});
  d.graphs.outside([this] {
    Device& device = *device_;
    const comm::Pending reports =
        comm_.start_all_gather(device.report_buffer(), device.report_offsets, device.stream.ref);
    if (leaf_sums_ != nullptr)
      comm_.wait(comm_.start_all_gather(device.loss_buffer(), device.loss_offsets, device.stream.ref),
                 device.stream.ref);
    comm_.wait(reports, device.stream.ref);
    device.steps.receive();
  });
  kernels::decide(exec, {.inputs = d.steps.on_device(),
                         .reports = d.all_reports(),
                         .world = comm_.size(),
                         .leaf_losses = leaf_sums_ != nullptr ? d.losses() : nullptr,
                         .leaves = options_.leaves,
                         .replicated = 1,
                         .bias_correction = options_.optimizer.bias_correction ? 1 : 0,
                         .groups = groups_,
                         .clip = options_.gradient_clipping,
                         .grad_divisor = gradient_divisor(),
                         .scaler = options_.scaler,
                         .state = Device::at<StepState>(d.state),
                         .group_steps = Device::at<GroupStep>(d.groups),
                         .result = d.steps.result()});
  if (d.tile_count > 0) {
    // Master and moments are read and written, the gradient is read, a 16-bit copy written; FLOPs are Adam's.
    const double touched =
        12 + 8 * static_cast<double>(optimizer_->moments().size()) + (options_.compute == DType::f32 ? 0 : 2);
    const ProbeScope scope(options_.probe, Activity::optimizer, "update", 15 * owned, touched * owned);
    optimizer_->update(exec,
                       {.master = buffers_.master(),
                        .master_extent = buffers_.extents().master,
                        .param16 = buffers_.param16(),
                        .param16_dtype = options_.compute,
                        .param16_extent = buffers_.extents().param16,
                        .grad = grad,
                        .tiles = Device::at<const Tile>(d.tiles),
                        .tile_count = d.tile_count,
                        .tensors = Device::at<const TileRun>(d.tensors),
                        .tensor_count = d.tensor_count,
                        .scratch = d.update_scratch.data(),
                        .groups = Device::at<const GroupStep>(d.groups),
                        .state = Device::at<const StepState>(d.state)},
                       buffers_.moments());
  }
  if (values_ != nullptr) values_->updated(d.stream.ref);
}

void Engine::require_no_pass(const char* caller) const {
  if (in_pass_) fail(ErrorKind::internal, "engine: {} between forward and backward", caller);
  if (options_.captured && micro_ == options_.grad_accum)
    fail(ErrorKind::internal,
         "engine: {} between the last backward and step; of captured steps the last passes have yet to run", caller);
}

EvaluationSum Engine::evaluate(const data::HostBatch& batch) {
  require_no_pass("evaluate");
  Device& d = *device_;
  const nn::Batch on_device = d.batches.upload(batch);
  d.api.fill_zero(d.eval_loss.data(), d.eval_loss.bytes(), d.stream.ref);
  if (values_ != nullptr) values_->begin_pass(eval_plan_.unit_events, d.stream.ref);
  nn::Workspace workspace(d.workspace.data(), d.workspace.bytes());
  nn::ContextOptions options = context_options(nn::Mode::evaluate);
  options.workspace = &workspace;
  auto* const sums = Device::at<EvaluationSum>(d.eval_loss);
  options.loss = &sums->loss;
  options.correct = &sums->correct;
  nn::Context context(std::move(options));
  model_.loss(context, on_device);
  EvaluationSum result;
  d.api.copy(&result, sums, sizeof result, d.stream.ref);
  d.api.synchronize(d.stream.ref);
  return result;
}

std::vector<float> Engine::last_logits(const data::HostBatch& batch) {
  require_no_pass("last_logits");
  Device& d = *device_;
  const nn::Batch on_device = d.batches.upload(batch);
  if (values_ != nullptr) values_->begin_pass(eval_plan_.unit_events, d.stream.ref);
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
    const auto at = static_cast<std::size_t>(b) * stride;
    d.api.copy(row.data(), logits.as<std::byte>() + at * size_of(logits.dtype()), row.size(), d.stream.ref);
    d.api.synchronize(d.stream.ref);
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
