#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/flat_layout.hpp"
#include "optim/optimizer.hpp"

namespace lockstep::engine {

/// How the flat space is divided over ranks for ZeRO (Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
/// Trillion Parameter Models", SC 2020). Every rank works out the same map.
///
/// Each bucket is cut into one part a rank, in the order of ranks; parts consist of whole leaves of the gradient's norm
/// and may be uneven or empty. What is left of an even division goes to whoever has least so far, so that shards stay
/// balanced over buckets. A rank's shard is its parts of all buckets, one after another. An optimizer that looks at
/// whole parameters gets whole units.
class ShardMap {
 public:
  /// A run of the flat space that one rank owns, and where it begins in that rank's shard.
  struct Own : FlatRange {
    std::int64_t shard_begin = 0;
  };

  /// `sharded` false: every rank owns everything, and both indices of a tile are equal.
  ShardMap(const FlatLayout& layout, std::int64_t bucket_elements, optim::Granularity granularity, bool sharded,
           int rank, int ranks);

  [[nodiscard]] bool sharded() const { return sharded_; }
  [[nodiscard]] const std::vector<FlatLayout::Bucket>& buckets() const { return buckets_; }
  /// Of a bucket: ranks + 1 ascending offsets from its begin, as collectives take them. Only if sharded.
  [[nodiscard]] std::span<const std::size_t> offsets(std::size_t bucket) const { return offsets_[bucket]; }
  /// This rank's part of a bucket, as offsets from its begin.
  [[nodiscard]] FlatRange own_part(std::size_t bucket) const;
  /// Where this rank's part of a bucket begins in its shard.
  [[nodiscard]] std::int64_t shard_begin(std::size_t bucket) const { return shard_begin_[bucket]; }
  /// This rank's runs, ascending and not adjacent.
  [[nodiscard]] const std::vector<Own>& own() const { return own_; }
  [[nodiscard]] std::int64_t shard_elements() const { return loads_[static_cast<std::size_t>(rank_)]; }
  /// Of the rank that has most: the size that shards are made with, since arenas are equal on all ranks.
  [[nodiscard]] std::int64_t largest_shard() const;
  /// By rank, elements.
  [[nodiscard]] const std::vector<std::int64_t>& loads() const { return loads_; }

  /// The layout's lists, of what this rank owns: tiles are cut where parts end.
  [[nodiscard]] std::vector<Tile> tiles(const FlatLayout& layout) const;
  [[nodiscard]] std::vector<TileRun> tile_runs(const FlatLayout& layout) const;
  [[nodiscard]] std::vector<optim::Tensor> tensors(const FlatLayout& layout,
                                                   const std::vector<nn::ParameterSpec>& parameters) const;
  [[nodiscard]] std::vector<NormLeaf> norm_leaves(const FlatLayout& layout) const;

  /// visit(run) for this rank's part of [begin, end), in order.
  template <class Visit>
  void for_own(std::int64_t begin, std::int64_t end, const Visit& visit) const {
    auto own = std::upper_bound(own_.begin(), own_.end(), begin,
                                [](std::int64_t index, const Own& run) { return index < run.end; });
    for (; own != own_.end() && own->begin < end; ++own) {
      const std::int64_t from = std::max(begin, own->begin), to = std::min(end, own->end);
      visit(Own{{from, to}, own->shard_begin + (from - own->begin)});
    }
  }

 private:
  bool sharded_;
  int rank_;
  std::vector<FlatLayout::Bucket> buckets_;
  std::vector<std::vector<std::size_t>> offsets_;
  std::vector<std::int64_t> shard_begin_;
  std::vector<std::int64_t> loads_;
  std::vector<Own> own_;
};

}  // namespace lockstep::engine
