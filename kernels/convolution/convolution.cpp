#include "kernels/convolution/convolution.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {
namespace {

/// Whether there is anything to compute.
bool checked(const ConvolutionShape& s, DType dtype) {
  require(is_compute_dtype(dtype), "convolution: dtype must be f32, bf16 or f16");
  require(s.batch >= 0 && s.height > 0 && s.width > 0 && s.in > 0 && s.out > 0,
          "convolution: batch must be >= 0 and all other sizes > 0");
  require(s.kernel > 0 && s.kernel % 2 == 1, "convolution: the kernel's size must be odd");
  return s.batch > 0;
}

}  // namespace

void convolution_forward(const Exec& exec, const ConvolutionForwardArgs& args) {
  if (!checked(args.shape, args.dtype)) return;
  require(args.x != nullptr && args.weight != nullptr && args.y != nullptr,
          "convolution_forward: x, weight and y are needed");
  require(has_scratch(exec, args), "convolution_forward: scratch is needed");
  check(exec.table->convolution_forward(exec, args));
}

void convolution_input_grad(const Exec& exec, const ConvolutionInputGradArgs& args) {
  if (!checked(args.shape, args.dtype)) return;
  require(args.dy != nullptr && args.weight != nullptr && args.dx != nullptr,
          "convolution_input_grad: dy, weight and dx are needed");
  require(has_scratch(exec, args), "convolution_input_grad: scratch is needed");
  check(exec.table->convolution_input_grad(exec, args));
}

void convolution_weight_grad(const Exec& exec, const ConvolutionWeightGradArgs& args) {
  (void)checked(args.shape, args.dtype);
  require(args.dweight != nullptr && (args.shape.batch == 0 || (args.x != nullptr && args.dy != nullptr)),
          "convolution_weight_grad: x, dy and dweight are needed");
  require(has_scratch(exec, args), "convolution_weight_grad: scratch is needed");
  check(exec.table->convolution_weight_grad(exec, args));
}

}  // namespace lockstep::kernels
