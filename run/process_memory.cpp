#include "run/process_memory.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "engine/engine.hpp"

namespace lockstep::run {

std::optional<std::uint64_t> process_memory(const std::string& root) {
  std::ifstream in(root + "/proc/self/smaps_rollup");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t kib = 0;
    if (words >> name && name == "Pss:" && words >> kib) return kib * 1024;
  }
  return std::nullopt;
}

void PeakMemory::look() { bytes_ = std::max(bytes_, process_memory().value_or(0)); }

ProcessNeed process_need(const job::JobConfig& job, const MemoryNeed& need, int ranks) {
  // Measured on Debian 12 (docs/memory.md): what a process writes of its own, and the code that the processes of a
  // host share.
  constexpr std::size_t own16 = std::size_t{16} << 20, own32 = std::size_t{24} << 20, shared = std::size_t{9} << 20;
  // The library's sgemm packs more, and is what multiplies operands that were widened.
  const bool half = (job.bf16.enabled || job.fp16.enabled) && need.widening == 0;
  const std::size_t own = (half ? own16 : own32) + need.widening;
  ProcessNeed process;
  process.data = static_cast<std::size_t>(data_bytes(job));
  process.snapshot = wants_snapshot(job) ? need.snapshot : 0;
  process.rounding = need.rounding;
  process.program = own + shared / static_cast<std::size_t>(std::max(1, ranks));
  if (ranks > 1 && job.comm.intra_host == "mpi") {
    // Half a bucket arrives at once, of two buckets that are under way. In shared memory nothing arrives.
    const auto bucket = static_cast<std::size_t>(
        job.zero_optimization.reduce_bucket_size.value_or(engine::EngineOptions{}.bucket_elements));
    process.staging = std::min(need.exchange, bucket * sizeof(float));
  }
  return process;
}

std::size_t planned_process_bytes(const job::JobConfig& job, const MemoryNeed& need, int host_ranks, int threads,
                                  bool engine_on_host) {
  const ProcessNeed process = process_need(job, need, host_ranks / threads);
  const std::size_t of_rank = process.data + process.snapshot + (engine_on_host ? need.total() + process.rounding : 0);
  return static_cast<std::size_t>(threads) * of_rank + process.staging + process.program;
}

}  // namespace lockstep::run
