#include "engine/shard_map.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"

namespace lockstep::engine {
namespace {

/// Elements of each rank's part of a bucket: whole leaves, evenly; the leaves that are left, and the last one, which
/// may be short, go to the ranks with the smallest loads.
std::vector<std::int64_t> parts_of(std::int64_t elements, const std::vector<std::int64_t>& loads) {
  constexpr std::int64_t leaf = norm_leaf_elements;
  const auto ranks = static_cast<std::int64_t>(loads.size());
  const std::int64_t leaves = (elements + leaf - 1) / leaf;
  std::vector<std::size_t> order(loads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t rank) { return loads[rank]; });
  std::vector<std::int64_t> parts(loads.size(), leaves / ranks * leaf);
  for (std::int64_t i = 0; i < leaves % ranks; ++i) parts[order[static_cast<std::size_t>(i)]] += leaf;
  // The last leaf lies at the end, so whoever comes last and has something has the short one.
  const auto last = std::ranges::find_if(parts.rbegin(), parts.rend(), [](std::int64_t part) { return part > 0; });
  if (last != parts.rend()) *last -= leaves * leaf - elements;
  return parts;
}

}  // namespace

ShardMap::ShardMap(const FlatLayout& layout, std::int64_t bucket_elements, optim::Granularity granularity, bool sharded,
                   int rank, int ranks)
    : sharded_(sharded), rank_(rank), loads_(static_cast<std::size_t>(ranks), 0) {
  constexpr std::int64_t leaf = norm_leaf_elements;
  if (!sharded) {
    buckets_ = layout.buckets(bucket_elements);
    for (const FlatLayout::Bucket& bucket : buckets_) shard_begin_.push_back(bucket.begin);
    std::ranges::fill(loads_, layout.size());
    own_ = {{{0, layout.size()}, 0}};
    return;
  }
  const bool whole_units = granularity != optim::Granularity::element;
  buckets_ = layout.buckets(whole_units ? std::max<std::int64_t>(layout.size(), 1)
                                        : (std::max<std::int64_t>(bucket_elements, 1) + leaf - 1) / leaf * leaf);
  for (const FlatLayout::Bucket& bucket : buckets_) {
    std::vector<std::int64_t> parts(loads_.size(), 0);
    if (whole_units)
      parts[static_cast<std::size_t>(std::ranges::min_element(loads_) - loads_.begin())] = bucket.end - bucket.begin;
    else
      parts = parts_of(bucket.end - bucket.begin, loads_);
    shard_begin_.push_back(shard_elements());
    std::vector<std::size_t> offsets = {0};
    for (std::size_t r = 0; r < parts.size(); ++r) {
      const std::int64_t begin = bucket.begin + static_cast<std::int64_t>(offsets.back());
      if (static_cast<int>(r) == rank && parts[r] > 0) {
        if (!own_.empty() && own_.back().end == begin)
          own_.back().end += parts[r];
        else
          own_.push_back({{begin, begin + parts[r]}, loads_[r]});
      }
      loads_[r] += parts[r];
      offsets.push_back(offsets.back() + static_cast<std::size_t>(parts[r]));
    }
    offsets_.push_back(std::move(offsets));
  }
}

FlatRange ShardMap::own_part(std::size_t bucket) const {
  if (!sharded_) return {0, buckets_[bucket].end - buckets_[bucket].begin};
  const std::vector<std::size_t>& offsets = offsets_[bucket];
  const auto rank = static_cast<std::size_t>(rank_);
  return {static_cast<std::int64_t>(offsets[rank]), static_cast<std::int64_t>(offsets[rank + 1])};
}

std::int64_t ShardMap::largest_shard() const { return *std::ranges::max_element(loads_); }

std::vector<Tile> ShardMap::tiles(const FlatLayout& layout) const {
  std::vector<Tile> result;
  for (const FlatLayout::Slice& slice : layout.slices())
    for (std::int64_t at = 0; at < slice.elements; at += tile_elements) {
      const std::int64_t begin = slice.begin + at;
      const std::int64_t end = begin + std::min<std::int64_t>(tile_elements, slice.elements - at);
      for_own(begin, end, [&](const Own& run) {
        result.push_back({.begin = static_cast<std::uint64_t>(run.begin),
                          .shard_begin = static_cast<std::uint64_t>(run.shard_begin),
                          .count = static_cast<std::uint32_t>(run.size()),
                          .group = static_cast<std::uint32_t>(slice.group)});
      });
    }
  return result;
}

std::vector<TileRun> ShardMap::tile_runs(const FlatLayout& layout) const {
  std::vector<TileRun> result;
  std::uint32_t first = 0;
  for (const FlatLayout::Slice& slice : layout.slices()) {
    std::uint32_t count = 0;
    for_own(slice.begin, slice.begin + slice.elements, [&](const Own& run) {
      require(run.size() == slice.elements, "shard map: a parameter is cut that must be whole");
      count = static_cast<std::uint32_t>((slice.elements + tile_elements - 1) / tile_elements);
    });
    if (count > 0) result.push_back({first, count});
    first += count;
  }
  return result;
}

std::vector<optim::Tensor> ShardMap::tensors(const FlatLayout& layout,
                                             const std::vector<nn::ParameterSpec>& parameters) const {
  const std::vector<optim::Tensor> all = layout.tensors(parameters);
  std::vector<optim::Tensor> result;
  std::uint32_t first = 0;
  for (std::size_t s = 0; s < all.size(); ++s) {
    const FlatLayout::Slice& slice = layout.slices()[s];
    bool mine = false;
    for_own(slice.begin, slice.begin + slice.elements, [&](const Own&) { mine = true; });
    if (!mine) continue;
    result.push_back(all[s]);
    result.back().tiles.first = first;
    first += all[s].tiles.count;
  }
  return result;
}

std::vector<NormLeaf> ShardMap::norm_leaves(const FlatLayout& layout) const {
  std::vector<NormLeaf> result;
  for (const NormLeaf& leaf : layout.norm_leaves()) {
    const auto begin = static_cast<std::int64_t>(leaf.begin);
    for_own(begin, begin + leaf.count, [&](const Own& run) {
      require(run.size() == leaf.count, "shard map: a leaf of the norm is cut");
      result.push_back(leaf);
      result.back().shard_begin = static_cast<std::uint64_t>(run.shard_begin);
    });
  }
  return result;
}

}  // namespace lockstep::engine
