#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "core/host_device.hpp"

namespace lockstep {

/// What a flat buffer holds: the whole flat space, or only this rank's shard of it, whose pieces lie one after another.
enum class Extent : std::int32_t { full = 0, shard = 1 };

/// A run of at most tile_elements elements of the flat space that belong to one parameter group. Update kernels walk
/// a list of tiles (one block or loop chunk each); elements in no tile are padding and stay untouched.
struct Tile {
  std::uint64_t begin = 0;        ///< flat index of its first element: its place in buffers of full extent
  std::uint64_t shard_begin = 0;  ///< its place in this rank's shards; equal to begin where nothing is sharded
  std::uint32_t count = 0;
  std::uint32_t group = 0;
};
inline constexpr std::uint32_t tile_elements = 16384;

/// The tiles of one parameter in a list of them: all are whole on the rank whose list it is.
struct TileRun {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

/// A tile where nothing is sharded.
[[nodiscard]] constexpr Tile unsharded_tile(std::uint64_t begin, std::uint32_t count, std::uint32_t group) {
  return {begin, begin, count, group};
}

/// A run of at most norm_leaf_elements elements whose squares are summed first; the sums are the terms of the norm's
/// tree. Leaves are counted from the start of each unit, so that neither ranks nor buckets nor threads move them.
struct NormLeaf {
  std::uint64_t begin = 0;        ///< as in Tile
  std::uint64_t shard_begin = 0;  ///< as in Tile
  std::uint32_t count = 0;
  std::uint32_t index = 0;  ///< which term of the tree, among the leaves of the whole flat space
};
inline constexpr std::uint32_t norm_leaf_elements = 16384;

/// Where a tile or leaf begins in a buffer of this extent.
template <class Run>
[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr std::uint64_t begin_in(const Run& run, Extent extent) {
  return extent == Extent::shard ? run.shard_begin : run.begin;
}

/// A gradient as a sum of 1..max_grad_sources buffers of one extent, added in fp32 as the tree T over the sources
/// (core/sum_tree.hpp). More than one is how ranks of one host skip the separate reduction.
inline constexpr int max_grad_sources = 8;
struct GradSources {
  const void* source[max_grad_sources] = {};
  std::int32_t count = 1;
  DType dtype = DType::f32;
  Extent extent = Extent::full;
};

}  // namespace lockstep
