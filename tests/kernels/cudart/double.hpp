#pragma once

// The CUDA runtime as far as kernels/cuda/device_cuda.cpp calls it, in host memory: work is done when it is enqueued,
// unless it is stuck.

#include <cstddef>
#include <vector>

namespace lockstep::testing {

struct CudartDouble {
  bool stuck = false;        ///< work enqueued so far never ends
  int looks_until_done = 0;  ///< so many questions find work under way
  bool broken = false;       ///< questions are answered with an error of the device
  int looks = 0;             ///< questions asked
  int blocking_calls = 0;    ///< calls that wait for all work of the device, as freeing does
  int live = 0;              ///< blocks, streams and events not given back
  std::size_t free_bytes = std::size_t{1} << 30;
  std::size_t total_bytes = std::size_t{4} << 30;
  int pending_error = 0;        ///< what cudaGetLastError would return
  std::vector<int> priorities;  ///< of the streams made
};
[[nodiscard]] CudartDouble& cudart_double();

}  // namespace lockstep::testing
