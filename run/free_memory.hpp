#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "core/device.hpp"

namespace lockstep::run {

/// What is left of memory on this host, as the system says at this moment.
struct FreeMemory {
  static constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

  std::uint64_t host = unlimited;     ///< for all ranks of this host: the least of machine and control groups
  std::string host_limit;             ///< which of them that is: "the machine", "the control group /a"
  std::uint64_t process = unlimited;  ///< of this process's address space (RLIMIT_AS, ulimit -v)

  /// For one rank of so many on the host, of which `process_ranks` are threads of this process.
  [[nodiscard]] std::uint64_t of_rank(int host_ranks, int process_ranks) const;
  /// What of_rank is bounded by.
  [[nodiscard]] std::string limit(int host_ranks, int process_ranks) const;
};

/// Reads /proc/meminfo (MemAvailable), the limits of this process's control groups and of all above them (v1 and v2;
/// pages of files that the kernel would give back count as free), and RLIMIT_AS. What cannot be read limits nothing.
/// `root` stands before every path.
[[nodiscard]] FreeMemory free_memory(const std::string& root = "");
/// The same of a device with memory of its own, for the ranks that share it.
[[nodiscard]] FreeMemory free_memory_of(DeviceApi& device);

}  // namespace lockstep::run
