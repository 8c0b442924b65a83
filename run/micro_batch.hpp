#pragma once

#include <string>

#include "run/launch.hpp"
#include "run/memory.hpp"

namespace lockstep::run {

// train_micro_batch_size_per_gpu: auto.

struct MicroBatchChoice {
  std::int64_t micro = 0;
  std::string why;  ///< "auto: the largest within 2.00 GiB a rank"
};

/// The largest micro-batch that shares out the job's train_batch_size and whose plan fits into run.memory_limit, or
/// without one into nine tenths of this rank's share of what is free. ErrorKind::environment, with what it needs and
/// what would help, if not even one sample fits; ErrorKind::config if ranks cannot share the batch at all.
[[nodiscard]] MicroBatchChoice largest_micro_batch(const job::LoadedJob& job, nn::Model& model,
                                                   const KernelTable& kernels, DeviceApi& device, std::int64_t ranks,
                                                   const std::string& ranks_source, int host_ranks, int process_ranks,
                                                   int device_ranks);

/// Writes the number into a job that says auto; other jobs stay as they are. Returns why, or nothing.
/// Collective: the smallest of what fits each rank.
std::string settle_micro_batch(job::LoadedJob& job, nn::Model& model, const RankContext& rank);
/// The same without ranks, of so many on this machine.
std::string settle_micro_batch(job::LoadedJob& job, nn::Model& model, const KernelTable& kernels, DeviceApi& device,
                               int ranks, const std::string& ranks_source);

/// "(given)" of the micro-batch in BatchSizes::text gives way to why it is what it is.
void explain_micro_batch(job::BatchSizes& batch, const std::string& why);

}  // namespace lockstep::run
