#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace lockstep {

/// T(0, count) over term(0), term(1), ... (core/sum_tree.hpp), on host and device; 0 without terms.
template <class Term>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double tree_sum(std::uint64_t count, const Term& term) {
  double partial[64];  // sums of complete subtrees, largest first; their sizes are the set bits of `done`
  int depth = 0;
  for (std::uint64_t done = 0; done < count; ++done) {
    double sum = term(done);
    for (std::uint64_t bits = done; (bits & 1U) != 0; bits >>= 1) sum = partial[--depth] + sum;
    partial[depth++] = sum;
  }
  double sum = depth > 0 ? partial[--depth] : 0.0;
  while (depth > 0) sum = partial[--depth] + sum;
  return sum;
}

}  // namespace lockstep
