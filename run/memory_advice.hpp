#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "run/memory.hpp"

namespace lockstep::run {

/// Divisors of n below `limit`, largest first.
[[nodiscard]] std::vector<std::int64_t> divisors_below(std::int64_t n, std::int64_t limit);

/// What run.memory_limit leaves for one rank's MemoryNeed, its process's program and data taken off; unlimited without.
[[nodiscard]] std::uint64_t job_limit(const job::JobConfig& job, const MemoryNeed& need, int host_ranks,
                                      int process_ranks, bool on_device);

/// For a job that does not fit: the settings that do, one a line with what each needs, as the plan says. Alone, a
/// smaller micro-batch, bf16, fewer ranks on the host, exact sums for invariant ones; if none of them does alone,
/// together; if they do not even so, what they need.
[[nodiscard]] std::string memory_advice(const FreeMemory& free, const MemoryQuestion& question);

}  // namespace lockstep::run
