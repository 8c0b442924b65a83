#include "engine/flat_layout.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace lockstep::engine {

FlatLayout::FlatLayout(const std::vector<nn::ParameterSpec>& parameters, const nn::Plan& plan,
                       const std::vector<int>& group_of) {
  require(plan.completion_order.size() == parameters.size(),
          "flat layout: the plan does not complete every parameter's gradient; is a parameter unused?");
  slice_of_.assign(parameters.size(), -1);
  for (const nn::ParamId param : plan.completion_order) {
    const auto id = static_cast<std::size_t>(param);
    const nn::ParameterSpec& spec = parameters[id];
    slice_of_[id] = static_cast<int>(slices_.size());
    slices_.push_back(
        {.param = param, .begin = size_, .elements = spec.stored_elements(), .unit = spec.unit, .group = group_of[id]});
    size_ += (spec.stored_elements() + slice_alignment - 1) / slice_alignment * slice_alignment;
  }
}

const FlatLayout::Slice* FlatLayout::find(std::int64_t index) const {
  const auto after = std::upper_bound(slices_.begin(), slices_.end(), index,
                                      [](std::int64_t i, const Slice& slice) { return i < slice.begin; });
  if (after == slices_.begin()) return nullptr;
  const Slice& slice = *(after - 1);
  return index < slice.begin + slice.elements ? &slice : nullptr;
}

std::vector<Tile> FlatLayout::tiles() const {
  std::vector<Tile> result;
  for (const Slice& slice : slices_) {
    for (std::int64_t at = 0; at < slice.elements; at += tile_elements) {
      result.push_back(
          unsharded_tile(static_cast<std::uint64_t>(slice.begin + at),
                         static_cast<std::uint32_t>(std::min<std::int64_t>(tile_elements, slice.elements - at)),
                         static_cast<std::uint32_t>(slice.group)));
    }
  }
  return result;
}

std::vector<TileRun> FlatLayout::tile_runs() const {
  std::vector<TileRun> result;
  std::uint32_t first = 0;
  for (const Slice& slice : slices_) {
    const auto count = static_cast<std::uint32_t>((slice.elements + tile_elements - 1) / tile_elements);
    result.push_back({first, count});
    first += count;
  }
  return result;
}

std::vector<optim::Tensor> FlatLayout::tensors(const std::vector<nn::ParameterSpec>& parameters) const {
  int last_unit = 0;
  for (const nn::ParameterSpec& spec : parameters) last_unit = std::max(last_unit, spec.unit);
  std::vector<optim::Tensor> result;
  for (const TileRun& tiles : tile_runs()) {
    const nn::ParameterSpec& spec = parameters[static_cast<std::size_t>(slices_[result.size()].param)];
    const bool hidden = spec.shape.size() == 2 && spec.unit != 0 && spec.unit != last_unit;
    result.push_back({tiles, hidden ? spec.stored_rows : 0, hidden ? spec.shape[1] : 0});
  }
  return result;
}

std::vector<NormLeaf> FlatLayout::norm_leaves() const {
  std::vector<NormLeaf> result;
  for (std::size_t s = 0; s < slices_.size();) {
    std::size_t next = s;
    while (next < slices_.size() && slices_[next].unit == slices_[s].unit) ++next;
    const std::int64_t end = next < slices_.size() ? slices_[next].begin : size_;
    for (std::int64_t at = slices_[s].begin; at < end; at += norm_leaf_elements)
      result.push_back({.begin = static_cast<std::uint64_t>(at),
                        .shard_begin = static_cast<std::uint64_t>(at),
                        .count = static_cast<std::uint32_t>(std::min<std::int64_t>(norm_leaf_elements, end - at)),
                        .index = static_cast<std::uint32_t>(result.size())});
    s = next;
  }
  return result;
}

std::size_t FlatLayout::norm_leaf_count() const {
  std::size_t count = 0;
  for (std::size_t s = 0; s < slices_.size();) {
    std::size_t next = s;
    while (next < slices_.size() && slices_[next].unit == slices_[s].unit) ++next;
    const std::int64_t end = next < slices_.size() ? slices_[next].begin : size_;
    count += static_cast<std::size_t>((end - slices_[s].begin + norm_leaf_elements - 1) / norm_leaf_elements);
    s = next;
  }
  return count;
}

std::vector<FlatRange> FlatLayout::units() const {
  std::vector<FlatRange> result;
  for (std::size_t s = 0; s < slices_.size(); ++s) {
    const auto unit = static_cast<std::size_t>(slices_[s].unit);
    if (unit >= result.size()) result.resize(unit + 1);
    const std::int64_t end = s + 1 < slices_.size() ? slices_[s + 1].begin : size_;
    if (result[unit].size() == 0) result[unit] = {slices_[s].begin, slices_[s].begin};
    require(result[unit].end == slices_[s].begin, "flat layout: a unit's parameters are not completed together");
    result[unit].end = end;
  }
  return result;
}

std::vector<FlatLayout::Bucket> FlatLayout::buckets(std::int64_t elements) const {
  std::vector<Bucket> result;
  const auto slice_end = [&](int s) {
    return s + 1 < static_cast<int>(slices_.size()) ? slices_[static_cast<std::size_t>(s) + 1].begin : size_;
  };
  Bucket open{};
  bool is_open = false;
  for (int s = 0; s < static_cast<int>(slices_.size()); ++s) {
    const Slice& slice = slices_[static_cast<std::size_t>(s)];
    if (is_open && open.unit != slice.unit) {
      result.push_back(open);
      is_open = false;
    }
    std::int64_t at = slice.begin;
    while (at < slice_end(s)) {
      if (!is_open) open = {.begin = at, .end = at, .unit = slice.unit, .first_slice = s, .last_slice = s};
      is_open = true;
      const std::int64_t take = std::min(slice_end(s) - at, elements - (open.end - open.begin));
      at += take;
      open.end = at;
      open.last_slice = s;
      if (open.end - open.begin == elements) {
        result.push_back(open);
        is_open = false;
      }
    }
  }
  if (is_open) result.push_back(open);
  return result;
}

}  // namespace lockstep::engine
