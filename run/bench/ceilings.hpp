#pragma once

#include <cstddef>
#include <string>

#include "kernels/exec.hpp"
#include "run/bench/measure.hpp"

namespace lockstep::run::bench {

/// Arrays of an update with Adam's traffic.
struct UpdateArrays {
  float *p, *m, *v;
  const float* g;
  std::size_t count;
};

/// Host memory: 4 arrays are read and 3 of them written, in place, with next to no arithmetic. 28 bytes an element.
[[nodiscard]] Task in_place_update(const UpdateArrays& arrays, int threads);
/// Host memory: to <- from past the caches, as a copy that nobody reads soon is best made.
void stream_copy(float* to, const float* from, std::size_t count, int threads);
/// Twice `bytes` of traffic: to <- from in the way that is fastest where they lie.
[[nodiscard]] Task copy_of(const std::string& name, const Exec& exec, void* to, const void* from, std::size_t bytes);

}  // namespace lockstep::run::bench
