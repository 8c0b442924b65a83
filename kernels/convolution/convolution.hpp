#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

/// A convolution with stride 1 whose zero padding keeps height and width: images [batch, height, width, channels],
/// weights [kernel, kernel, in, out], kernel odd.
struct ConvolutionShape {
  std::int64_t batch = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t in = 0;   ///< channels of x
  std::int64_t out = 0;  ///< channels of y
  std::int64_t kernel = 3;

  [[nodiscard]] constexpr std::int64_t pixels() const { return batch * height * width; }
  [[nodiscard]] constexpr std::int64_t taps() const { return kernel * kernel; }
};

struct ConvolutionForwardArgs {
  const void* x = nullptr;       ///< [batch, height, width, in]
  const void* weight = nullptr;  ///< [kernel, kernel, in, out]
  void* y = nullptr;             ///< [batch, height, width, out]
  ConvolutionShape shape = {};
  DType dtype = DType::f32;
  void* scratch = nullptr;
};

struct ConvolutionInputGradArgs {
  const void* dy = nullptr;      ///< [batch, height, width, out]
  const void* weight = nullptr;  ///< [kernel, kernel, in, out]
  void* dx = nullptr;            ///< out [batch, height, width, in]
  ConvolutionShape shape = {};
  DType dtype = DType::f32;
  void* scratch = nullptr;
};

struct ConvolutionWeightGradArgs {
  const void* x = nullptr;   ///< [batch, height, width, in]
  const void* dy = nullptr;  ///< [batch, height, width, out]
  float* dweight = nullptr;  ///< [kernel, kernel, in, out]
  ConvolutionShape shape = {};
  std::int32_t accumulate = 1;  ///< 0: dweight is written, else added to
  DType dtype = DType::f32;
  void* scratch = nullptr;
};

namespace kernels {
/// y[n, i, j, o] <- sum over a, b < kernel and c of x[n, i + a - r, j + b - r, c] weight[a, b, c, o], r = kernel / 2,
/// where x is 0 outside the image. No buffers overlap. Results on CPUs are the library's: they repeat for the same
/// number of threads; with exec.invariant one thread computes them.
void convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args);
/// dx <- the gradient of x: the convolution of dy with the weights turned by half a turn and transposed.
void convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args);
/// dweight (+)= the gradient of the weights.
void convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args);
}  // namespace kernels

}  // namespace lockstep
