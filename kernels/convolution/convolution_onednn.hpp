#pragma once

#include "kernels/convolution/convolution.hpp"

namespace lockstep::kernels {

// The library's convolutions in fp32, buffers as in the Args of the same names. ErrorKind::environment with the
// library's words if it fails.
void onednn_convolution_forward(const ConvolutionShape& shape, const float* x, const float* weight, float* y,
                                int threads);
void onednn_convolution_input_grad(const ConvolutionShape& shape, const float* dy, const float* weight, float* dx,
                                   int threads);
void onednn_convolution_weight_grad(const ConvolutionShape& shape, const float* x, const float* dy, float* dweight,
                                    bool accumulate, int threads);

}  // namespace lockstep::kernels
