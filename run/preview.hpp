#pragma once

#include <string>
#include <vector>

#include "run/memory.hpp"
#include "run/process_memory.hpp"

namespace lockstep::run {

/// How long a step takes on this machine, and what that is known from.
struct StepEstimate {
  bool recorded = false;   ///< the median of the latest steps of the job's own run, with as many ranks; else worked out
  std::int64_t steps = 0;  ///< of that run
  /// Worked out: all ranks' products at the speed that a large one just had on all CPUs, the optimizer's and the
  /// exchange's bytes at the memory's. All else that a step does, and waiting, is left
  /// out, so that real steps are longer (docs/memory.md has some); overlap is left out too.
  double products_s = 0, update_s = 0, exchange_s = 0;
  double flops_per_s = 0, bytes_per_s = 0;  ///< measured just now
  double seconds = 0;                       ///< a step
};

/// What a job will be on so many ranks of this machine: shapes, bytes and times, from its plan.
struct Preview {
  std::string model, device;
  job::BatchSizes batch;
  DType compute = DType::f32;
  int stage = 0;  ///< the job's
  std::string recompute;
  /// Bytes of one rank. The ranks' needs differ by the rounding of shards; this is the first rank's.
  struct Row {
    int stage = 0;
    std::string recompute;
    MemoryNeed need;
    ProcessNeed process;  ///< zeros where the device has memory of its own
    [[nodiscard]] std::size_t total() const { return need.total() + process.total(); }
  };
  std::vector<Row> rows;  ///< stages 0 to 3; of gpt2 each without and with model.recompute: block
  Row job;                ///< as the job says
  FreeMemory free;
  std::uint64_t free_for_a_rank = 0;
  StepEstimate step;
};

/// Without MPI. Of the job's data only as much is read as the model must know of them. ErrorKind::config and
/// ErrorKind::data as `lockstep train` has them.
[[nodiscard]] Preview preview(const job::LoadedJob& job, int ranks, const std::string& ranks_source);

}  // namespace lockstep::run
