#include "engine/parameter_store.hpp"

#include <utility>

namespace lockstep::engine {

FlatStore::FlatStore(const FlatLayout& layout, const FlatBuffers& buffers, StreamRef stream, UnitValues* values,
                     const GradientWindows* windows, std::function<void(int)> on_contribution,
                     std::function<void(int)> on_acquire, std::function<void(int)> on_release)
    : layout_(layout),
      buffers_(buffers),
      stream_(stream),
      values_(values),
      windows_(windows),
      units_(values != nullptr || windows != nullptr ? layout.units() : std::vector<FlatRange>{}),
      on_contribution_(std::move(on_contribution)),
      on_acquire_(std::move(on_acquire)),
      on_release_(std::move(on_release)),
      grads_(buffers.grad()),
      begun_(layout.slices().size(), false) {}

nn::GradView FlatStore::grad(nn::ParamId id) {
  const int index = layout_.slice_index(id);
  const FlatLayout::Slice& slice = layout_.of(id);
  std::int64_t begin = slice.begin;
  if (windows_ != nullptr) {
    const auto unit = static_cast<std::size_t>(slice.unit);
    begin += windows_->begin[unit] - units_[unit].begin;
  }
  return {.data = grads_ + begin, .first = !begun_[static_cast<std::size_t>(index)]};
}

void FlatStore::grad_contributed(nn::ParamId id) {
  const int slice = layout_.slice_index(id);
  begun_[static_cast<std::size_t>(slice)] = true;
  on_contribution_(slice);
}

const void* FlatStore::value(nn::ParamId id) {
  const FlatLayout::Slice& slice = layout_.of(id);
  const std::size_t width = size_of(buffers_.compute());
  if (values_ != nullptr)
    return values_->begin_of(slice.unit) +
           static_cast<std::size_t>(slice.begin - units_[static_cast<std::size_t>(slice.unit)].begin) * width;
  const Buffer whole = buffers_.values(Memory::host);
  return static_cast<const std::byte*>(whole.data) + static_cast<std::size_t>(slice.begin) * width;
}

}  // namespace lockstep::engine
