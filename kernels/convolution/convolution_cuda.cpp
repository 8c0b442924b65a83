#include "kernels/convolution/cudnn_convolution.hpp"
#include "kernels/convolution/direct_convolution.hpp"
#include "kernels/cuda/cuda_context.hpp"
#include "kernels/declare.hpp"

// cuDNN's where it can be opened and takes the sizes, our own else.
namespace lockstep::kernels::cuda {

std::size_t convolution_forward_scratch(const ConvolutionForwardArgs& args) noexcept {
  return cudnn_filter_bytes(args.shape, args.dtype);
}
std::size_t convolution_input_grad_scratch(const ConvolutionInputGradArgs& args) noexcept {
  return cudnn_filter_bytes(args.shape, args.dtype);
}
std::size_t convolution_weight_grad_scratch(const ConvolutionWeightGradArgs& args) noexcept {
  return cudnn_filter_bytes(args.shape, DType::f32);
}

void convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args) {
  CudnnConvolution* cudnn = cuda_context(exec).convolution();
  if (cudnn == nullptr || !cudnn->forward(exec, args)) direct_convolution_forward(exec, args);
}
void convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) {
  CudnnConvolution* cudnn = cuda_context(exec).convolution();
  if (cudnn == nullptr || !cudnn->input_grad(exec, args)) direct_convolution_input_grad(exec, args);
}
void convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) {
  CudnnConvolution* cudnn = cuda_context(exec).convolution();
  if (cudnn == nullptr || !cudnn->weight_grad(exec, args)) direct_convolution_weight_grad(exec, args);
}

}  // namespace lockstep::kernels::cuda
