#include "engine/parameter_store.hpp"

#include "core/error.hpp"

namespace lockstep::engine {

FlatStore::FlatStore(const FlatLayout& layout, const nn::Plan& plan, FlatBuffers buffers,
                     std::function<void(int)> on_complete)
    : layout_(layout),
      uses_(plan.grad_uses),
      remaining_(plan.grad_uses),
      buffers_(buffers),
      on_complete_(std::move(on_complete)) {}

const void* FlatStore::value(nn::ParamId id) {
  const std::int64_t begin = layout_.of(id).begin;
  if (buffers_.param16 == nullptr) return buffers_.master + begin;
  return static_cast<const std::byte*>(buffers_.param16) + static_cast<std::size_t>(begin) * size_of(buffers_.compute);
}

void FlatStore::grad_contributed(nn::ParamId id) {
  int& left = remaining_[static_cast<std::size_t>(id)];
  require(left > 0, "parameter store: a gradient got more contributions than the plan counts");
  if (--left == 0) on_complete_(layout_.slice_index(id));
}

void FlatStore::begin_micro_batch() { remaining_ = uses_; }

}  // namespace lockstep::engine
