#pragma once

// For *_cpu.cpp files: how loops are divided over threads. Static for the reason in kernels/cpu/isa_namespace.hpp.

#include <cstdint>

namespace lockstep::kernels {

/// Threads worth starting for a pass over `elements`: a fork and join costs about a microsecond.
[[nodiscard]] [[gnu::always_inline]] static inline int threads_for(int threads, std::int64_t elements) {
  return elements < 16384 ? 1 : threads;
}

/// body(i) for each i < count, divided evenly over threads. Pieces have fixed sizes, so that no result depends on the
/// number of threads.
template <class Body>
static inline void for_pieces(int threads, std::int64_t count, const Body& body) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count > 1)
  for (std::int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace lockstep::kernels
