#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/engine.hpp"
#include "job/job.hpp"
#include "kernels/cuda_loader.hpp"

namespace lockstep::run {

/// A rank among those of its host.
struct HostRank {
  int rank = 0;
  int ranks = 1;
};

/// The device that one rank computes on, with its kernels. Made before the rank's communicator, which may need it.
struct SelectedPlace {
  std::unique_ptr<DeviceApi> device;
  const KernelTable* kernels = nullptr;
  std::string text;               ///< "cpu (auto) avx512", "cuda:1 (NVIDIA H200)"
  bool host_reads_memory = true;  ///< the host may follow the device's pointers: not those of a GPU
  int sharing = 1;                ///< ranks on this device, with memory of its own; this one included

  [[nodiscard]] engine::Place with_threads(int threads) const {
    return {.device = device.get(), .kernels = kernels, .threads = threads};
  }
};

/// What there is of CUDA: whether this build has the module, and the module, or an exception that says what is missing.
struct Gpus {
  bool module_is_there = cuda_module_is_there();
  std::function<const CudaModule&()> load = load_cuda_module;
};

/// Chooses by run.device, comm.backend and comm.share_gpu.
///
/// A rank gets the GPU with its number on the host; where ranks share GPUs, modulo their number. ErrorKind::environment
/// if what the job asks for cannot be had: no module, library, driver or GPU, or more ranks on the host than GPUs
/// without comm.share_gpu. device: auto takes the CPU then, and the text says why, unless there is no CUDA module at
/// all.
[[nodiscard]] SelectedPlace select_place(const job::JobConfig& job, HostRank host, const Gpus& gpus = {});

}  // namespace lockstep::run
