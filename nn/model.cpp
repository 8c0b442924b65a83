#include "nn/model.hpp"

#include <utility>

#include "core/error.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {

void Model::loss(Context& context, const Batch& batch) {
  add_loss(context, batch);
  context.finish_forward();
}

void Model::add_loss(Context& context, const Batch& batch) {
  require(batch.shape.length == 1, "nn::Model: a model of sequences must say itself what its loss is");
  const Targets targets{batch.targets, batch.grad_factor};
  Tensor scores = logits(context, batch);
  if (outputs() > 0) return squared_error(context, std::move(scores), batch.values, targets);
  accuracy(context, scores, targets, classes());
  cross_entropy(context, std::move(scores), targets, classes());
}

std::int64_t Model::parameter_count() const {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : parameters_) count += spec.elements();
  return count;
}

ParamId Model::add(ParameterSpec spec) {
  require(!spec.shape.empty(), "nn::Model::add: a parameter needs at least one dimension");
  require(spec.unit >= 0 && spec.unit < units_, "nn::Model::add: the parameter's unit is not declared; call add_unit");
  if (spec.stored_rows == 0) spec.stored_rows = spec.shape.front();
  require(spec.stored_rows >= spec.shape.front(), "nn::Model::add: stored_rows is less than the first dimension");
  for (const ParameterSpec& other : parameters_)
    if (other.name == spec.name) fail(ErrorKind::internal, "the model declares two parameters named {}", spec.name);
  parameters_.push_back(std::move(spec));
  return static_cast<ParamId>(parameters_.size()) - 1;
}

}  // namespace lockstep::nn
