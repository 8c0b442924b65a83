#pragma once

// cuBLASLt by its definition, on the host: what its manual says of the functions that we call, and no more. It holds
// each call against the manual's rules, so that a wrong size, layout, type or alignment is a failed call.

#include <cublasLt.h>

#include <vector>

namespace lockstep::testing {

struct CublasLtDouble {
  int heuristics = 0;          ///< how often a way was asked for
  int products = 0;            ///< how often one was done
  int last_algorithm = -1;     ///< of the last product
  std::vector<int> requested;  ///< of each question, how many ways
  cublasComputeType_t last_compute = CUBLAS_COMPUTE_32F;
  bool no_bias = false;    ///< no way with a bias is known
  int fast_algorithm = 0;  ///< the others take a millisecond longer
  bool capturing = false;  ///< what cudaStreamIsCapturing says
};
/// State of the double, for tests to set and read.
[[nodiscard]] CublasLtDouble& cublaslt_double();

}  // namespace lockstep::testing
