#include <utility>

#include "core/error.hpp"
#include "nn/op_cost.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

ConvolutionShape shape_of(const Shape& x, const ConvolutionLayer& layer) {
  return {.batch = x.dim[0],
          .height = x.dim[1],
          .width = x.dim[2],
          .in = x.dim[3],
          .out = layer.out,
          .kernel = layer.kernel};
}

PoolShape pool_of(const ConvolutionShape& s, std::int64_t pool) {
  return {.batch = s.batch, .height = s.height, .width = s.width, .channels = s.out, .pool = pool};
}

void bias_gradient(Context& context, const Tensor& dpre, ParamId bias) {
  const GradView grad = context.grad(bias);
  context.run_with_scratch(kernels::bias_grad, BiasGradArgs{.dy = dpre.data(),
                                                            .dbias = grad.data,
                                                            .rows = dpre.shape().rows(),
                                                            .cols = dpre.shape().last(),
                                                            .accumulate = grad.first ? 0 : 1,
                                                            .dtype = dpre.dtype()});
  context.contributed(bias);
}

}  // namespace

Tensor convolution(Context& context, Tensor x, const ConvolutionLayer& layer, bool flat) {
  require(x.shape().rank == 4, "nn::convolution: x must be [batch, height, width, channels]");
  const ConvolutionShape conv = shape_of(x.shape(), layer);
  const PoolShape pool = pool_of(conv, layer.pool);
  const Shape pre_shape{conv.batch, conv.height, conv.width, conv.out};
  const std::int64_t height = pool.out_height(), width = pool.out_width();
  require(height > 0 && width > 0, "nn::convolution: no window fits into the image");
  const Shape shape = flat ? Shape{conv.batch, height * width * conv.out} : Shape{conv.batch, height, width, conv.out};
  Cost cost = matmul_cost(conv.pixels(), conv.out, conv.taps() * conv.in, x.dtype());
  Cost backward = twice(cost);
  backward += pass_cost(pre_shape, 2, 3, x.dtype());
  cost += pass_cost(pre_shape, 2, 2, x.dtype());
  context.begin("convolution", shape, cost, backward);
  Tensor pre = context.make(pre_shape);
  context.run_with_scratch(
      kernels::convolution_forward,
      ConvolutionForwardArgs{
          .x = x.data(), .weight = context.value(layer.weight), .y = pre.data(), .shape = conv, .dtype = x.dtype()});
  Tensor y = context.make(shape);
  context.run(
      kernels::relu_pool_forward,
      ReluPoolForwardArgs{
          .pre = pre.data(), .bias = context.value(layer.bias), .y = y.data(), .shape = pool, .dtype = x.dtype()});

  context.end([x = std::move(x), pre = std::move(pre), y = TensorRef(y), layer, conv, pool](Context& c) mutable {
    const Tensor dy = c.take_grad(y).tensor;
    if (!dy.defined()) return;
    // Each window is read before it is written: the gradient takes the place of what was convolved.
    c.run(kernels::relu_pool_backward, ReluPoolBackwardArgs{.dy = dy.data(),
                                                            .pre = pre.data(),
                                                            .bias = c.value(layer.bias),
                                                            .dpre = pre.data(),
                                                            .shape = pool,
                                                            .dtype = pre.dtype()});
    bias_gradient(c, pre, layer.bias);
    const GradView grad = c.grad(layer.weight);
    c.run_with_scratch(kernels::convolution_weight_grad, ConvolutionWeightGradArgs{.x = x.data(),
                                                                                   .dy = pre.data(),
                                                                                   .dweight = grad.data,
                                                                                   .shape = conv,
                                                                                   .accumulate = grad.first ? 0 : 1,
                                                                                   .dtype = pre.dtype()});
    c.contributed(layer.weight);
    const TensorRef to = x;
    x = {};
    if (!c.needs_grad(to)) return;
    const Tensor dx = c.make(to.shape, to.dtype);
    c.run_with_scratch(
        kernels::convolution_input_grad,
        ConvolutionInputGradArgs{
            .dy = pre.data(), .weight = c.value(layer.weight), .dx = dx.data(), .shape = conv, .dtype = pre.dtype()});
    c.give_grad(to, dx, true);
  });
  return y;
}

}  // namespace lockstep::nn
