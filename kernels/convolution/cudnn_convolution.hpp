#pragma once

// cuDNN's convolutions, as far as cuDNN can be had (kernels/cuda/cudnn.hpp).

#include <memory>

#include "kernels/convolution/convolution.hpp"
#include "kernels/cuda/cudnn.hpp"

namespace lockstep::kernels {

class CudnnConvolution {
 public:
  [[nodiscard]] static std::unique_ptr<CudnnConvolution> with(CudnnGraphs& graphs);
  virtual ~CudnnConvolution() = default;

  /// False, with nothing done, where cuDNN does not take these sizes and types, or there are no images. args.scratch
  /// holds cudnn_filter_bytes(). What else it needs is made when the sizes are met first: a plan and memory of
  /// `exec.device`.
  [[nodiscard]] virtual bool forward(const Exec& exec, const ConvolutionForwardArgs& args) = 0;
  [[nodiscard]] virtual bool input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) = 0;
  [[nodiscard]] virtual bool weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) = 0;
};

/// Bytes of the weights, or their gradient, in the order that cuDNN wants: it has no engines for ours. 0 where the
/// module was built without it.
[[nodiscard]] std::size_t cudnn_filter_bytes(const ConvolutionShape& shape, DType dtype) noexcept;

}  // namespace lockstep::kernels
