#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "engine/engine.hpp"
#include "job/batch.hpp"
#include "job/job.hpp"
#include "run/free_memory.hpp"
#include "run/launch.hpp"

namespace lockstep::run {

// What a job will allocate is known from its plan, before anything is allocated, on any machine.

/// Of one rank; total() is the Engine::bytes() of the engine that would be made.
struct MemoryNeed {
  std::size_t state = 0;        ///< parameters, gradients, the optimizer's moments, sums of micro-batches
  std::size_t activations = 0;  ///< of a micro-batch's passes
  std::size_t packed = 0;       ///< copies of weights that kernels prefer, made when they are first used
  std::size_t other = 0;        ///< lists, staging, what goes to and fro each step
  double flops = 0;             ///< of a micro-batch
  std::size_t exchange = 0;     ///< bytes that a rank hands to the communicator each step
  std::size_t buckets = 0;      ///< in which it does so with the gradient
  std::size_t rounding = 0;     ///< not in total(): buffers of host memory end on whole huge pages
  std::size_t widening = 0;     ///< not in total(): of 16-bit operands, where the CPU has no such products
  std::size_t snapshot = 0;     ///< not in total(): host memory for a copy of what the rank saves (ShardSnapshot)

  std::int64_t owned = 0;    ///< elements that this rank updates
  std::int64_t moments = 0;  ///< numbers that the optimizer keeps for each

  /// What `state` consists of.
  struct State {
    std::size_t parameters = 0;  ///< that the passes read: 16 bits, or fp32 where they are the masters
    std::size_t masters = 0;     ///< beside 16-bit parameters
    std::size_t gradients = 0;
    std::size_t moments = 0;
    std::size_t sums = 0;      ///< of micro-batches on their way, with determinism: invariant
    std::size_t windows = 0;   ///< ZeRO 2 and 3: gradients that are being made and reduced
    std::size_t gathered = 0;  ///< ZeRO 3: parameters while they are used
    [[nodiscard]] std::size_t total() const {
      return parameters + masters + gradients + moments + sums + windows + gathered;
    }
  } parts;
  [[nodiscard]] std::size_t total() const { return state + activations + packed + other; }
};

/// What Engine(model, comm, place, options) will need on a rank of so many, whose device does its work at once or not.
/// Allocates nothing of that size; milliseconds for any model.
[[nodiscard]] MemoryNeed memory_need(nn::Model& model, const KernelTable& kernels, bool immediate, int rank, int ranks,
                                     const engine::EngineOptions& options);

/// A job on its ranks, to be looked at before it runs.
struct MemoryQuestion {
  const job::LoadedJob& job;
  nn::Model& model;
  const KernelTable& kernels;
  DeviceApi& device;
  job::BatchSizes batch;
  bool fixed_batch = false;  ///< batch and micro-batch are a checkpoint's and cannot be changed
  int host_ranks = 1;        ///< of all ranks, those that share this host's memory
  int process_ranks = 1;     ///< of them, those that are threads of one process
  int device_ranks = 1;      ///< of all ranks, those that share this rank's device
  bool reachable = true;     ///< the ranks of a host reach each other's memory

  [[nodiscard]] bool on_device() const { return device.memory() == Memory::device; }
  /// What the job's memory is taken from, and the ranks that share it.
  [[nodiscard]] FreeMemory free() const { return on_device() ? free_memory_of(device) : free_memory(); }
  /// Of `free` what is left for the MemoryNeed of one rank, run.memory_limit minded.
  [[nodiscard]] std::uint64_t left(const FreeMemory& free, const MemoryNeed& need) const;
  /// What that is bounded by.
  [[nodiscard]] std::string limit(const FreeMemory& free, const MemoryNeed& need) const;
  /// Of engine_options().
  [[nodiscard]] bool one_memory() const {
    return reachable && host_ranks == batch.world && job.config.comm.intra_host != "mpi";
  }
  [[nodiscard]] int sharing() const { return on_device() ? device_ranks : host_ranks; }
  [[nodiscard]] int sharing_process() const { return on_device() ? 1 : process_ranks; }
};

/// "memory    79.7 MiB a rank, of it activations 67.3 MiB; ...": the line of a run's header and of `lockstep config`.
[[nodiscard]] std::string memory_line(const MemoryNeed& need, const FreeMemory& free, const MemoryQuestion& question);

/// Nothing if the job fits into what is free; else a text with what it needs, what is free, and the settings that do
/// fit: each was planned, none is guessed.
[[nodiscard]] std::optional<std::string> memory_shortage(const MemoryNeed& need, const FreeMemory& free,
                                                         const MemoryQuestion& question);

/// Collective, and the first that a rank does before it allocates: rank 0 prints the memory line, and if some rank has
/// too little, all of them end with ErrorKind::environment. Of a GPU it is the GPU's memory that counts. Returns this
/// rank's need.
MemoryNeed require_memory(const MemoryQuestion& question, comm::Communicator& comm);

/// Whether the job saves beside training, if there is room for the copies (MemoryNeed::snapshot).
[[nodiscard]] bool wants_snapshot(const job::JobConfig& job);
/// Collective, before anything is allocated: whether every rank's copy has room beside what it needs.
[[nodiscard]] bool room_for_snapshots(const MemoryQuestion& question, const MemoryNeed& need, comm::Communicator& comm);

/// Runs `make`, which allocates what the job needs. Where the device has less than it said, the error names what fits.
void with_memory_advice(const MemoryQuestion& question, const std::function<void()>& make);

/// Bytes that the job's data take in each process, as far as they can be told before they are read: 0 of what is
/// mapped, and of a file that is not there.
[[nodiscard]] std::uint64_t data_bytes(const job::JobConfig& job);

/// ErrorKind::environment if the job's data alone do not fit: asked before they are read or made.
void require_memory_for_data(const job::JobConfig& job, const FreeMemory& free, const RankContext& rank);

/// The memory line for a job that is not to run now, and a second line if it would not fit: what `lockstep config`
/// prints. `ranks` on this host, each a process of its own. Empty where the job is refused for another reason.
[[nodiscard]] std::string memory_forecast(const job::LoadedJob& job, int ranks);

}  // namespace lockstep::run
