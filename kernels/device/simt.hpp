#pragma once

// What a .cu file includes: real CUDA under nvcc, the emulator under g++ with -DLOCKSTEP_SIMT_EMU.
//
// Rules for kernels, so that both compilations mean the same:
//   - launch only through launch();
//   - shared arrays are LOCKSTEP_SHARED(float, name, [32]), dynamic shared memory is LOCKSTEP_DYNAMIC_SHARED(T, name);
//   - arithmetic in float or double, 16-bit types (core/dtype.hpp) are only stored and converted;
//   - no floating-point atomics (the order of addition would be free), no waiting of one block for another.

#include "kernels/exec.hpp"

#if defined(LOCKSTEP_SIMT_EMU)

#include "kernels/emu/simt_emu.hpp"
#define LOCKSTEP_KERNEL_NS emu

namespace lockstep {

/// What a grid that walks its work is sized by: multiprocessors of the calling thread's device. Few under the emulator,
/// so that every block takes several turns. No result may depend on it.
inline unsigned multiprocessors() { return 2; }

}  // namespace lockstep

#else

#include <cuda_runtime.h>

#define LOCKSTEP_KERNEL_NS cuda
#define LOCKSTEP_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define LOCKSTEP_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(16) unsigned char lockstep_dynamic_shared_[]; \
  T* name = reinterpret_cast<T*>(lockstep_dynamic_shared_)

namespace lockstep {

/// Throws ErrorKind::environment if the launch just made was refused (kernels/cuda/device_cuda.cpp).
void check_launch(dim3 grid, dim3 block);

inline unsigned multiprocessors() {
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess || count < 1)
    return 1;  // the launch that follows is refused, and says why
  return static_cast<unsigned>(count);
}

/// Enqueues kernel<<<grid, block, dynamic_shared>>>(args...) on exec's stream.
template <class... Parameters, class... Args>
void launch(const Exec& exec, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared,
            Args&&... args) {
  kernel<<<grid, block, dynamic_shared, static_cast<cudaStream_t>(exec.stream.handle)>>>(
      static_cast<Parameters>(args)...);
  check_launch(grid, block);
}

}  // namespace lockstep

#endif

namespace lockstep {

/// Threads that a multiprocessor of the architecture that is compiled for holds at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
inline constexpr unsigned resident_threads = 1024;
#elif defined(__CUDA_ARCH__) && \
    (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 870 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
inline constexpr unsigned resident_threads = 1536;
#else
inline constexpr unsigned resident_threads = 2048;
#endif
/// For __launch_bounds__: `blocks` of a multiprocessor, or as many as it holds.
constexpr unsigned resident_blocks(unsigned threads, unsigned blocks) {
  return threads * blocks <= resident_threads ? blocks : resident_threads / threads;
}

/// Blocks of a grid that walks `work` pieces, each block one after another: `each` for every multiprocessor, no more
/// than there are pieces, at least one.
inline unsigned persistent_blocks(std::size_t work, unsigned each) {
  const std::size_t most = std::size_t{multiprocessors()} * each;
  return static_cast<unsigned>(work < 1 ? 1 : work < most ? work : most);
}

}  // namespace lockstep
