#include "kernels/convolution/direct_convolution.hpp"
#include "kernels/declare.hpp"

// Under the emulator there is no cuDNN: our own kernels compute all of them.
namespace lockstep::kernels::emu {

std::size_t convolution_forward_scratch(const ConvolutionForwardArgs& /*args*/) noexcept { return 0; }
std::size_t convolution_input_grad_scratch(const ConvolutionInputGradArgs& /*args*/) noexcept { return 0; }
std::size_t convolution_weight_grad_scratch(const ConvolutionWeightGradArgs& /*args*/) noexcept { return 0; }

void convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args) {
  direct_convolution_forward(exec, args);
}
void convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) {
  direct_convolution_input_grad(exec, args);
}
void convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) {
  direct_convolution_weight_grad(exec, args);
}

}  // namespace lockstep::kernels::emu
