#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "run/memory.hpp"

namespace lockstep::run {

/// What this process takes of the machine's memory at this moment, in bytes: Pss of /proc/self/smaps_rollup, in which a
/// page that several processes share counts for each as its part. Nothing where the system does not tell. `root` stands
/// before the path.
[[nodiscard]] std::optional<std::uint64_t> process_memory(const std::string& root = "");

/// The most that process_memory said whenever it was asked. Reading it takes the kernel a walk over the process's
/// pages, so a run asks after the steps that it stops at anyway, never within one.
class PeakMemory {
 public:
  void look();
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }  ///< 0: never known

 private:
  std::uint64_t bytes_ = 0;
};

/// What a process of a run takes beside its engine's MemoryNeed, in bytes.
struct ProcessNeed {
  std::size_t data = 0;      ///< samples that are kept in memory
  std::size_t snapshot = 0;  ///< a copy of what is being saved, of a job that saves beside training
  std::size_t rounding = 0;  ///< buffers end on whole huge pages
  std::size_t staging = 0;   ///< what messages of other ranks arrive in
  std::size_t program = 0;   ///< code, libraries and what they allocate: measured (docs/memory.md), not counted
  [[nodiscard]] std::size_t total() const { return data + snapshot + rounding + staging + program; }
};

/// Of one of `ranks` processes on this host, on a CPU.
[[nodiscard]] ProcessNeed process_need(const job::JobConfig& job, const MemoryNeed& need, int ranks);

/// What process_memory should say at most of a process with `threads` ranks of so many on its host; on a device with
/// memory of its own, less what lies there.
[[nodiscard]] std::size_t planned_process_bytes(const job::JobConfig& job, const MemoryNeed& need, int host_ranks,
                                                int threads, bool engine_on_host);

}  // namespace lockstep::run
