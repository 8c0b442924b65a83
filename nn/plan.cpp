#include "nn/plan.hpp"

#include "core/error.hpp"
#include "nn/model.hpp"

namespace lockstep::nn {

Plan plan(Model& model, const KernelTable& kernels, const BatchShape& shape, DType compute, bool train) {
  Workspace workspace;
  Context context({.exec = {.table = &kernels},
                   .compute = compute,
                   .workspace = &workspace,
                   .mode = Mode::plan,
                   .plan_backward = train});
  const Batch batch{.shape = shape};
  model.loss(context, batch);
  if (train) context.backward();
  Plan result = context.finish_plan(static_cast<int>(model.parameters().size()));
  if (!train) return result;
  for (std::size_t i = 0; i < result.grad_uses.size(); ++i)
    if (result.grad_uses[i] == 0)
      fail(ErrorKind::internal,
           "parameter {} of {} gets no gradient: no operation that the loss depends on uses it; use it or do not "
           "declare it",
           model.parameters()[i].name, model.describe());
  return result;
}

}  // namespace lockstep::nn
