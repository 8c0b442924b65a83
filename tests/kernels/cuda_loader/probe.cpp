// Asks for the CUDA module as the program does: prints what it got, or the error, and leaves with its exit code.
#include <cstdio>

#include "core/error.hpp"
#include "kernels/cuda_loader.hpp"

int main() {
  try {
    std::printf("%d GPUs\n", lockstep::load_cuda_module().device_count());
    return 0;
  } catch (const lockstep::Error& error) {
    std::printf("%s\n", error.what());
    return lockstep::exit_code(error.kind());
  }
}
