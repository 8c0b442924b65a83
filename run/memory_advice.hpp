#pragma once

#include <string>

#include "run/memory.hpp"

namespace lockstep::run {

/// For a job that does not fit: the settings that do, one a line with what each needs, as the plan says. Alone, a
/// smaller micro-batch, bf16, fewer ranks on the host, exact sums for invariant ones; if none of them does alone,
/// together; if they do not even so, what they need.
[[nodiscard]] std::string memory_advice(const FreeMemory& free, const MemoryQuestion& question);

}  // namespace lockstep::run
