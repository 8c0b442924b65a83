// The programs here have no CUDA module, so no build id to compare with one's. Starts of a run name it when they are
// written, which no target does.
#include "kernels/cuda_loader.hpp"

namespace lockstep {

const char* build_id() { return "fuzz"; }

}  // namespace lockstep
