#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "run/bench/measure.hpp"

// The measurements of `lockstep bench`. All ranks call each alike; where there are several, every one of them works at
// the same time and a figure is the slowest rank's. Sizes of 0 are chosen for the device.

namespace lockstep::run::bench {

/// What one measurement gives.
struct Report {
  std::string bench;                           ///< "optimizer"
  std::vector<Measured> lines;                 ///< ceilings among them
  std::map<std::string, double> figures = {};  ///< more numbers, by name: "planned_bytes"
  std::vector<std::string> notes = {};         ///< for people
};

struct OptimizerShape {
  std::int64_t elements = 0;    ///< parameters; 0: GPT-2 124M's
  std::int64_t copy_bytes = 0;  ///< of the copy that is the ceiling on a device; 0: 4 GiB
};
/// Adam, AdamW with a 16-bit copy, SGD and the norm, against memory bandwidth: of an update in place on the host, of a
/// copy on a device.
[[nodiscard]] Report bench_optimizer(RankContext& rank, const OptimizerShape& shape, const Sampling& sampling);

struct AllReduceShape {
  std::vector<std::int64_t> bytes = {64 << 10, 1 << 20, 16 << 20, 64 << 20, 497'759'232};
};
/// fp32 sums over all ranks in place, against a copy of the same buffer on the same device; with MPI, also MPI's own
/// MPI_Iallreduce and MPI_Allreduce. `bytes` are the buffer's: the algorithm bandwidth. ErrorKind::config with one
/// rank.
[[nodiscard]] Report bench_all_reduce(RankContext& rank, const AllReduceShape& shape, const Sampling& sampling);

/// What ranks of one host do with their gradients after backward, AdamW in fp32 with the norm: with one copy of the
/// parameters in memory and with one each, and MPI_Allreduce with AdamW alone. ErrorKind::config where ranks do not
/// share the memory of one host's CPUs.
[[nodiscard]] Report bench_update(RankContext& rank, const OptimizerShape& shape, const Sampling& sampling);

struct GemmShape {
  std::int64_t tokens = 0;  ///< rows; 0: 1,024 on a CPU, 65,536 on a device
  std::int64_t width = 768;
  std::int64_t vocabulary = 50304;
  std::int64_t peak = 0;  ///< edge of the products that the ceiling comes from; 0: 2,048 or 8,192
};
/// Every product of a GPT-2 block and its head, forward and both backward ones, in fp32 and bf16, against a large
/// square product.
[[nodiscard]] Report bench_gemm(RankContext& rank, const GemmShape& shape, const Sampling& sampling);

struct AttentionShape {
  std::int64_t batch = 0;  ///< 0: 4 on a CPU, 64 on a device
  std::int64_t length = 1024;
  std::int64_t heads = 12;
  std::int64_t head_size = 64;
  std::int64_t peak = 0;  ///< as in GemmShape
};
/// Causal attention forward and backward, fp32 and bf16; FLOPs of the unmasked half, against large products.
[[nodiscard]] Report bench_attention(RankContext& rank, const AttentionShape& shape, const Sampling& sampling);

struct StepShape {
  int classes = 0;        ///< symbols of the random data; 0: what the job's data have
  std::int64_t peak = 0;  ///< as in GemmShape
};
/// Whole training steps of a job on random samples: FLOPs of the plan, against large products of the same
/// precision. Prints the line about memory.
[[nodiscard]] Report bench_step(RankContext& rank, const job::LoadedJob& job, const StepShape& shape,
                                const Sampling& sampling);

/// A job for bench_step: GPT-2 124M in bf16. 0.5M tokens an update on a device, 4 windows of 256 tokens on a CPU.
/// `overrides` as of --set.
[[nodiscard]] job::LoadedJob usual_step_job(bool immediate, const std::vector<std::string>& overrides);

}  // namespace lockstep::run::bench
