#pragma once

#include <memory>
#include <string>

#include "engine/engine.hpp"
#include "job/job.hpp"

namespace lockstep::run {

/// The device that one rank computes on, with its kernels. Made before the rank's communicator, which may need it.
struct SelectedPlace {
  std::unique_ptr<DeviceApi> device;
  const KernelTable* kernels = nullptr;
  std::string text;  ///< "cpu (auto) avx512"

  [[nodiscard]] engine::Place with_threads(int threads) const {
    return {.device = device.get(), .kernels = kernels, .threads = threads};
  }
};

/// Chooses by run.device. ErrorKind::environment, naming what is missing, if it cannot be had.
[[nodiscard]] SelectedPlace select_place(const job::JobConfig& job);

}  // namespace lockstep::run
