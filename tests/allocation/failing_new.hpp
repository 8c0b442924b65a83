#pragma once

#include <cstdint>

namespace lockstep::testing {

// The operator new of this program, which fails when it is told to.

/// From now on, of the allocations of all threads, number n (from 0) throws std::bad_alloc.
void fail_allocation(std::int64_t n);
void fail_no_allocation();
/// Whether there was such an allocation since fail_allocation().
[[nodiscard]] bool allocation_has_failed();

}  // namespace lockstep::testing
