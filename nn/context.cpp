#include "nn/context.hpp"

#include <exception>
#include <utility>

#include "core/error.hpp"

namespace lockstep::nn {

Context::Context(ContextOptions options) : options_(std::move(options)) {
  require(options_.workspace != nullptr, "nn::Context: needs a workspace");
  require(options_.exec.table != nullptr, "nn::Context: needs a kernel table");
  require(planning() || options_.store != nullptr, "nn::Context: needs a parameter store unless it plans");
}

Context::UnitScope::UnitScope(Context& context, int unit)
    : context_(context), unit_(unit), exceptions_(std::uncaught_exceptions()) {
  context_.acquire(unit_, Phase::forward);
  if (context_.recording()) context_.tape_.push_back({[unit](Context& c) { c.release(unit, Phase::backward); }, false});
}

Context::UnitScope::~UnitScope() noexcept(false) {
  if (std::uncaught_exceptions() > exceptions_) return;
  context_.release(unit_, Phase::forward);
  if (context_.recording())
    context_.tape_.push_back({[unit = unit_](Context& c) { c.acquire(unit, Phase::backward); }, false});
}

void Context::acquire(int unit, Phase phase) {
  if (!planning())
    options_.store->acquire(unit, phase);
  else
    unit_events_.push_back({unit, phase, true});
}

void Context::release(int unit, Phase phase) {
  if (!planning())
    options_.store->release(unit, phase);
  else
    unit_events_.push_back({unit, phase, false});
}

Tensor Context::make(const Shape& shape, DType dtype) {
  Tensor tensor(*options_.workspace, shape, dtype, next_id_++);
  if (watching()) made_.emplace_back(tensor);
  return tensor;
}

void Context::begin(std::string_view name, const Shape& out, Cost forward, Cost backward) {
  const int position = next_op_++;
  const bool again = region_ != nullptr && region_->again;
  if (planning()) ops_.push_back({std::string(name), out, forward, backward, again});
  if (options_.probe != nullptr && !planning())
    options_.probe->begin(again ? Activity::recompute : Activity::forward, name, forward.flops, forward.bytes);
  made_.clear();
  if (watching()) options_.watch->begin(position, Phase::forward);
  if (options_.expected == nullptr) return;
  const std::vector<OpPlan>& expected = *options_.expected;
  const auto index = static_cast<std::size_t>(position);
  if (index >= expected.size())
    fail(ErrorKind::internal,
         "operation {} is {} -> {}, but the plan ends after {} operations; every step must run the operations that "
         "were planned",
         position, name, out.text(), expected.size());
  if (expected[index].name != name || expected[index].out != out)
    fail(ErrorKind::internal,
         "operation {} is {} -> {}, but the plan has {} -> {} there; every step must run the operations that were "
         "planned, with the same batch shape",
         position, name, out.text(), expected[index].name, expected[index].out.text());
}

void Context::end(std::function<void(Context&)> backward) {
  if (recording()) tape_.push_back({std::move(backward), true, next_op_ - 1});
  if (options_.probe != nullptr && !planning()) options_.probe->end();
  if (watching())
    for (const Tensor::Weak& made : made_)
      if (const Tensor tensor = made.lock(); tensor.defined()) options_.watch->result(tensor);
  made_.clear();
  if (!planning() && options_.after_op) options_.after_op();
}

void Context::finish_forward() {
  if (options_.expected == nullptr) return;
  const auto done = static_cast<std::size_t>(next_op_);
  if (done < options_.expected->size() && !(*options_.expected)[done].again)
    fail(ErrorKind::internal,
         "the pass ended after {} operations, but the plan goes on with operation {}, {} -> {}; every step must run "
         "the operations that were planned",
         done, done, (*options_.expected)[done].name, (*options_.expected)[done].out.text());
}

void Context::contributed(ParamId id) {
  if (planning()) return contributions_.push_back(id);
  if (watching()) options_.watch->gradient(id, options_.store->grad(id).data);
  options_.store->grad_contributed(id);
}

Context::Grad Context::take_grad(const TensorRef& of) {
  const auto found = grads_.find(of.id);
  if (found == grads_.end()) return {};
  Grad grad = std::move(found->second);
  grads_.erase(found);
  // The other producer of a shared gradient may still have to read it.
  grad.writable = grad.writable && !grad.tensor.shared();
  return grad;
}

void Context::give_grad(const TensorRef& to, const Tensor& grad, bool writable) {
  if (!needs_grad(to)) return;
  require(to.shape.elements() == grad.shape().elements() && to.dtype == grad.dtype(),
          "nn::Context::give_grad: gradient and tensor differ in size or type");
  if (watching()) options_.watch->gradient(to, grad);
  const auto [entry, first] = grads_.try_emplace(to.id, Grad{grad, writable});
  if (first) return;

  Grad& present = entry->second;
  const auto count = static_cast<std::size_t>(grad.shape().elements());
  if (present.writable && !present.tensor.shared()) {
    run(kernels::axpy, AxpyArgs{.x = grad.data(),
                                .x_dtype = grad.dtype(),
                                .y = present.tensor.data(),
                                .y_dtype = grad.dtype(),
                                .count = count});
    if (watching()) options_.watch->gradient(to, present.tensor);
    return;
  }
  const Tensor sum = make(to.shape, to.dtype);
  OrderedSumArgs args{.to = sum.data(), .to_dtype = sum.dtype(), .count = count};
  args.sources.source[0] = present.tensor.data();
  args.sources.source[1] = grad.data();
  args.sources.count = 2;
  args.sources.dtype = grad.dtype();
  run(kernels::ordered_sum, args);
  present = {sum, true};
  if (watching()) options_.watch->gradient(to, sum);
}

std::vector<Tensor> Context::recomputed(std::vector<Tensor> inputs, Region region, Keep keep) {
  if (!recording()) return region(*this, std::move(inputs));
  require(region_ == nullptr, "nn::Context::recomputed: a region inside of another");
  region_ = std::make_shared<Kept>(Kept{.what = keep, .tensors = {}});
  paused_ = true;
  const std::vector<Tensor> outputs = region(*this, inputs);
  paused_ = false;
  std::vector<int> ids;
  for (const Tensor& output : outputs) ids.push_back(output.id());
  tape_.push_back({[inputs = std::move(inputs), region = std::move(region), kept = std::exchange(region_, nullptr),
                    ids = std::move(ids)](Context& c) mutable {
                     kept->again = true;
                     c.region_ = std::move(kept);
                     // By value: the region lets go of its inputs as soon as it does not need them.
                     std::vector<Tensor> again = region(c, std::move(inputs));
                     c.region_ = nullptr;
                     require(again.size() == ids.size(), "nn::Context::recomputed: another number of results");
                     for (std::size_t i = 0; i < ids.size(); ++i) c.move_grad(ids[i], again[i].id());
                     again.clear();
                     c.backward();
                   },
                   false});
  return outputs;
}

bool Context::recall(const std::vector<Tensor*>& made) {
  if (region_ == nullptr || !region_->again || region_->what == Keep::nothing) return false;
  for (Tensor* tensor : made) *tensor = std::exchange(region_->tensors.at(region_->next++), {});
  return true;
}

void Context::keep(const std::vector<Tensor>& made) {
  if (region_ == nullptr || region_->again || region_->what == Keep::nothing) return;
  region_->tensors.insert(region_->tensors.end(), made.begin(), made.end());
}

void Context::move_grad(int from, int to) {
  auto entry = grads_.extract(from);
  if (entry.empty() || from == to) {
    if (!entry.empty()) grads_.insert(std::move(entry));
    return;
  }
  entry.key() = to;
  grads_.insert(std::move(entry));
}

void Context::backward() {
  require(training(), "nn::Context::backward: this context records no tape");
  std::vector<Record> tape = std::exchange(tape_, {});
  while (!tape.empty()) {
    // Off the tape before it runs: what it captured is freed as soon as it is done.
    Record record = std::move(tape.back());
    tape.pop_back();
    const bool probed = options_.probe != nullptr && record.is_op && options_.expected != nullptr;
    if (probed) {
      const OpPlan& op = options_.expected->at(static_cast<std::size_t>(record.op));
      options_.probe->begin(Activity::backward, op.name, op.backward.flops, op.backward.bytes);
    }
    if (watching() && record.is_op) options_.watch->begin(record.op, Phase::backward);
    record.backward(*this);
    record.backward = nullptr;
    if (probed) options_.probe->end();
    if (record.is_op && !planning() && options_.after_op) options_.after_op();
  }
}

Plan Context::finish_plan(int parameter_count) {
  require(planning(), "nn::Context::finish_plan: this context does not plan");
  Plan plan;
  plan.ops = std::move(ops_);
  plan.unit_events = std::move(unit_events_);
  plan.grad_uses.assign(static_cast<std::size_t>(parameter_count), 0);
  for (const ParamId id : contributions_) ++plan.grad_uses[static_cast<std::size_t>(id)];
  std::vector<int> left = plan.grad_uses;
  for (const ParamId id : contributions_)
    if (--left[static_cast<std::size_t>(id)] == 0) plan.completion_order.push_back(id);
  plan.train_bytes = options_.workspace->peak();
  plan.weight_products = std::move(weight_products_);
  for (const OpPlan& op : plan.ops) {
    if (op.again) {
      plan.again += op.forward;
      continue;
    }
    plan.forward += op.forward;
    plan.backward += op.backward;
  }
  return plan;
}

}  // namespace lockstep::nn
