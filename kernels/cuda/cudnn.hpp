#pragma once

// cuDNN, as far as it can be had: the module is built with its graph API where CMake finds cuDNN's and cudnn_frontend's
// headers, and the library itself is opened when a context is made. What is computed with it stands beside the kernel
// it is for: kernels/attention/cudnn_attention.hpp, kernels/convolution/cudnn_convolution.hpp.

#include <memory>
#include <string>

namespace lockstep::kernels {

/// An open library (cudnn_graphs.hpp).
class CudnnGraphs;
struct CudnnRelease {
  void operator()(CudnnGraphs* graphs) const noexcept;
};
using Cudnn = std::unique_ptr<CudnnGraphs, CudnnRelease>;

/// Null where it cannot be had. text <- "cuDNN 9.19.0", or the reason.
[[nodiscard]] Cudnn open_cudnn(std::string& text);

}  // namespace lockstep::kernels
