#pragma once

// Our own convolutions on a GPU, each thread one result: right for any size, without memory to work in and without a
// library. The CUDA module computes with them where cuDNN cannot be opened or does not take the sizes, and is several
// times slower there where channels are many. Beside them, the weights in the order that cuDNN wants.

#include "kernels/convolution/convolution.hpp"

namespace lockstep {

/// filter[o, a, b, c] <- weight[a, b, c, o].
struct ConvolutionFilterArgs {
  const void* weight = nullptr;  ///< [kernel, kernel, in, out] of dtype
  void* filter = nullptr;        ///< [out, kernel, kernel, in] of dtype, not overlapping weight
  ConvolutionShape shape = {};
  DType dtype = DType::f32;
};

/// dweight[a, b, c, o] (+)= dfilter[o, a, b, c].
struct ConvolutionFilterGradArgs {
  const void* dfilter = nullptr;  ///< [out, kernel, kernel, in] of dtype
  float* dweight = nullptr;       ///< [kernel, kernel, in, out]
  ConvolutionShape shape = {};
  std::int32_t accumulate = 1;  ///< 0: dweight is written, else added to
  DType dtype = DType::f32;     ///< of dfilter
};

}  // namespace lockstep

#define LOCKSTEP_DECLARE_DIRECT_CONVOLUTION                                                     \
  void direct_convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args);        \
  void direct_convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args);   \
  void direct_convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args); \
  void convolution_filter(const Exec& exec, const ConvolutionFilterArgs& args);                 \
  void convolution_filter_grad(const Exec& exec, const ConvolutionFilterGradArgs& args);

namespace lockstep::kernels {
namespace emu {
LOCKSTEP_DECLARE_DIRECT_CONVOLUTION
}
namespace cuda {
LOCKSTEP_DECLARE_DIRECT_CONVOLUTION
}
}  // namespace lockstep::kernels
#undef LOCKSTEP_DECLARE_DIRECT_CONVOLUTION
