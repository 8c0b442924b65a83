#pragma once

#include <cstdint>

#include "core/dtype.hpp"

namespace lockstep {

/// A run of at most tile_elements elements of the flat space that belong to one parameter group. Update kernels walk
/// a list of tiles (one block or loop chunk each); elements in no tile are padding and stay untouched.
struct Tile {
  std::uint64_t begin = 0;
  std::uint32_t count = 0;
  std::uint32_t group = 0;
};
inline constexpr std::uint32_t tile_elements = 16384;

/// A gradient as an ordered sum of 1..max_grad_sources buffers, each laid out like the flat space: added in fp32 in
/// this order. K > 1 is how ranks of one host skip the separate reduction.
inline constexpr int max_grad_sources = 8;
struct GradSources {
  const void* source[max_grad_sources] = {};
  std::int32_t count = 1;
  DType dtype = DType::f32;
};

}  // namespace lockstep
