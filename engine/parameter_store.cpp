#include "engine/parameter_store.hpp"

namespace lockstep::engine {

FlatStore::FlatStore(const FlatLayout& layout, const FlatBuffers& buffers, std::function<void(int)> on_contribution)
    : layout_(layout),
      buffers_(buffers),
      on_contribution_(std::move(on_contribution)),
      grads_(buffers.grad()),
      begun_(layout.slices().size(), false) {}

nn::GradView FlatStore::grad(nn::ParamId id) {
  const int slice = layout_.slice_index(id);
  return {.data = grads_ + layout_.of(id).begin, .first = !begun_[static_cast<std::size_t>(slice)]};
}

void FlatStore::grad_contributed(nn::ParamId id) {
  const int slice = layout_.slice_index(id);
  begun_[static_cast<std::size_t>(slice)] = true;
  on_contribution_(slice);
}

const void* FlatStore::value(nn::ParamId id) {
  const std::int64_t begin = layout_.of(id).begin;
  const auto* param16 = static_cast<const std::byte*>(buffers_.param16());
  if (param16 == nullptr) return buffers_.master() + begin;
  return param16 + static_cast<std::size_t>(begin) * size_of(buffers_.compute());
}

}  // namespace lockstep::engine
