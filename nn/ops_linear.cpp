// Operations made of matrix products: linear, linear_gelu.
#include <utility>

#include "nn/op_cost.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

Shape with_last(Shape shape, std::int64_t last) {
  shape.dim[static_cast<std::size_t>(shape.rank - 1)] = last;
  return shape;
}

/// y [rows, out] <- x [rows, in] W [in, out] (+ bias).
void forward_product(Context& context, const Tensor& x, ParamId weight, ParamId bias, const Tensor& y) {
  const std::int64_t in = x.shape().last(), out = y.shape().last();
  context.run(kernels::matmul, MatmulArgs{.a = x.data(),
                                          .b = context.value(weight),
                                          .c = y.data(),
                                          .bias = bias == no_parameter ? nullptr : context.value(bias),
                                          .m = x.shape().rows(),
                                          .n = out,
                                          .k = in,
                                          .lda = in,
                                          .ldb = out,
                                          .ldc = out,
                                          .dtype = x.dtype(),
                                          .c_dtype = y.dtype(),
                                          .b_param = weight,
                                          .b_version = context.version(weight)});
}

/// dW (+)= x^T dy.
void weight_grad(Context& context, const Tensor& x, const Tensor& dy, ParamId weight) {
  const std::int64_t in = x.shape().last(), out = dy.shape().last();
  const GradView grad = context.grad(weight);
  context.run(kernels::matmul, MatmulArgs{.a = x.data(),
                                          .b = dy.data(),
                                          .c = grad.data,
                                          .m = in,
                                          .n = out,
                                          .k = x.shape().rows(),
                                          .lda = in,
                                          .ldb = out,
                                          .ldc = out,
                                          .transpose_a = 1,
                                          .accumulate = grad.first ? 0 : 1,
                                          .dtype = x.dtype(),
                                          .c_dtype = DType::f32});
  context.contributed(weight);
}

/// dx <- dy W^T.
Tensor input_grad(Context& context, const Shape& shape, const Tensor& dy, ParamId weight) {
  const std::int64_t in = shape.last(), out = dy.shape().last();
  const Tensor dx = context.make(shape, dy.dtype());
  context.run(kernels::matmul, MatmulArgs{.a = dy.data(),
                                          .b = context.value(weight),
                                          .c = dx.data(),
                                          .m = shape.rows(),
                                          .n = in,
                                          .k = out,
                                          .lda = out,
                                          .ldb = out,
                                          .ldc = in,
                                          .transpose_b = 1,
                                          .dtype = dy.dtype(),
                                          .c_dtype = dx.dtype(),
                                          .b_param = weight,
                                          .b_version = context.version(weight)});
  return dx;
}

/// The half that linear and linear_gelu share, given the gradient of the product. Frees x before it makes dx.
void backward_product(Context& context, Tensor& x, const Tensor& dy, ParamId weight) {
  weight_grad(context, x, dy, weight);
  const TensorRef to = x;
  x = {};
  if (context.needs_grad(to)) context.give_grad(to, input_grad(context, to.shape, dy, weight), true);
}

}  // namespace

Tensor linear(Context& context, Tensor x, std::int64_t out, ParamId weight, ParamId bias) {
  const Shape shape = with_last(x.shape(), out);
  const Cost cost = matmul_cost(x.shape().rows(), out, x.shape().last(), x.dtype());
  context.begin("linear", shape, cost, twice(cost));
  Tensor y = context.make(shape);
  forward_product(context, x, weight, bias, y);

  context.end([x = std::move(x), y = TensorRef(y), weight, bias](Context& c) mutable {
    const Tensor dy = c.take_grad(y).tensor;
    if (!dy.defined()) return;
    if (bias != no_parameter) {
      const GradView grad = c.grad(bias);
      c.run_with_scratch(kernels::bias_grad, BiasGradArgs{.dy = dy.data(),
                                                          .dbias = grad.data,
                                                          .rows = dy.shape().rows(),
                                                          .cols = dy.shape().last(),
                                                          .accumulate = grad.first ? 0 : 1,
                                                          .dtype = dy.dtype()});
      c.contributed(bias);
    }
    backward_product(c, x, dy, weight);
  });
  return y;
}

Tensor linear_gelu(Context& context, Tensor x, std::int64_t out, ParamId weight, ParamId bias) {
  const Shape shape = with_last(x.shape(), out);
  Cost cost = matmul_cost(x.shape().rows(), out, x.shape().last(), x.dtype());
  const auto elements = static_cast<double>(shape.elements());
  const Cost gelu{10 * elements, 3 * elements * static_cast<double>(size_of(x.dtype()))};
  Cost backward = twice(cost);
  backward += twice(gelu);
  cost += gelu;
  context.begin("linear_gelu", shape, cost, backward);
  Tensor pre = context.make(shape);
  forward_product(context, x, weight, no_parameter, pre);
  Tensor y = context.make(shape);
  context.run(kernels::gelu_forward, GeluForwardArgs{.x = pre.data(),
                                                     .bias = context.value(bias),
                                                     .pre = pre.data(),
                                                     .y = y.data(),
                                                     .rows = shape.rows(),
                                                     .cols = out,
                                                     .dtype = y.dtype()});

  context.end([x = std::move(x), pre = std::move(pre), y = TensorRef(y), weight, bias](Context& c) mutable {
    Context::Grad dy = c.take_grad(y);
    if (!dy.tensor.defined()) return;
    const Tensor dpre = dy.writable ? dy.tensor : c.make(pre.shape(), pre.dtype());
    const GradView grad = c.grad(bias);
    c.run_with_scratch(kernels::gelu_backward, GeluBackwardArgs{.dy = dy.tensor.data(),
                                                                .pre = pre.data(),
                                                                .dx = dpre.data(),
                                                                .dbias = grad.data,
                                                                .rows = pre.shape().rows(),
                                                                .cols = pre.shape().last(),
                                                                .accumulate = grad.first ? 0 : 1,
                                                                .dtype = pre.dtype()});
    c.contributed(bias);
    dy = {};
    pre = {};
    backward_product(c, x, dpre, weight);
  });
  return y;
}

}  // namespace lockstep::nn
