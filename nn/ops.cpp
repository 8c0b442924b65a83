// Operations that are not matrix products; those are in ops_linear.cpp and ops_head.cpp.
#include "nn/ops.hpp"

#include <utility>

#include "core/error.hpp"
#include "nn/op_cost.hpp"

namespace lockstep::nn {
namespace {

/// Mean and reciprocal deviation of each row.
Tensor make_stats(Context& context, std::int64_t rows) { return context.make({2, rows}, DType::f32); }

void layernorm_forward(Context& context, const void* x, const void* residual, const Tensor& sum, const Tensor& stats,
                       const Tensor& y, ParamId gamma, ParamId beta) {
  const std::int64_t rows = y.shape().rows();
  float* const mean = stats.as<float>();
  context.run(kernels::layernorm_forward, LayernormForwardArgs{.x = x,
                                                               .residual = residual,
                                                               .sum = residual == nullptr ? nullptr : sum.data(),
                                                               .gamma = context.value(gamma),
                                                               .beta = context.value(beta),
                                                               .y = y.data(),
                                                               .mean = mean,
                                                               .rstd = mean == nullptr ? nullptr : mean + rows,
                                                               .rows = rows,
                                                               .cols = y.shape().last(),
                                                               .dtype = y.dtype()});
}

/// Gradient of what was normalised: that of the norm's output carried back, plus what else has reached `sum`. Takes
/// both from the context and writes in place where it may.
Tensor layernorm_backward(Context& context, const Tensor& sum, const Tensor& stats, const Context::Grad& dy,
                          ParamId gamma, ParamId beta) {
  const Context::Grad other = context.take_grad(sum);
  const std::int64_t rows = sum.shape().rows(), cols = sum.shape().last();
  Tensor dx = other.writable ? other.tensor : dy.writable ? dy.tensor : context.make(sum.shape(), sum.dtype());
  const float* const mean = stats.as<float>();
  const GradView dgamma = context.grad(gamma), dbeta = context.grad(beta);
  context.run_with_scratch(kernels::layernorm_backward,
                           LayernormBackwardArgs{.dy = dy.tensor.data(),
                                                 .x = sum.data(),
                                                 .gamma = context.value(gamma),
                                                 .mean = mean,
                                                 .rstd = mean == nullptr ? nullptr : mean + rows,
                                                 .dsum = other.tensor.defined() ? other.tensor.data() : nullptr,
                                                 .dx = dx.data(),
                                                 .dgamma = dgamma.data,
                                                 .dbeta = dbeta.data,
                                                 .rows = rows,
                                                 .cols = cols,
                                                 .accumulate_dgamma = dgamma.first ? 0 : 1,
                                                 .accumulate_dbeta = dbeta.first ? 0 : 1,
                                                 .dtype = sum.dtype()});
  context.contributed(gamma);
  context.contributed(beta);
  return dx;
}

}  // namespace

Tensor input(Context& context, const float* features, const Shape& shape) {
  context.begin("input", shape, pass_cost(shape, 0, 2, context.options().compute), {});
  Tensor x = context.make(shape);
  context.set_constant(x);
  context.run(kernels::cast, CastArgs{.from = features,
                                      .from_dtype = DType::f32,
                                      .to = x.data(),
                                      .to_dtype = x.dtype(),
                                      .count = static_cast<std::size_t>(shape.elements())});
  context.end([](Context&) {});
  return x;
}

Tensor embedding(Context& context, const std::int32_t* tokens, std::int64_t batch, std::int64_t length,
                 std::int64_t width, const EmbeddingTables& tables) {
  const Shape shape{batch, length, width};
  const Cost cost = pass_cost(shape, 1, 3, context.options().compute);
  context.begin("embedding", shape, cost, cost);
  Tensor y = context.make(shape);
  context.run(kernels::embedding_forward, EmbeddingForwardArgs{.tokens = tokens,
                                                               .wte = context.value(tables.wte),
                                                               .wpe = context.value(tables.wpe),
                                                               .y = y.data(),
                                                               .batch = batch,
                                                               .length = length,
                                                               .cols = width,
                                                               .vocabulary = tables.vocabulary,
                                                               .dtype = y.dtype()});

  context.end([=, y = TensorRef(y)](Context& c) {
    const Tensor dy = c.take_grad(y).tensor;
    if (!dy.defined()) return;
    const GradView dwte = c.grad(tables.wte), dwpe = c.grad(tables.wpe);
    c.run_with_scratch(kernels::embedding_backward, EmbeddingBackwardArgs{.tokens = tokens,
                                                                          .dy = dy.data(),
                                                                          .dwte = dwte.data,
                                                                          .dwpe = dwpe.data,
                                                                          .batch = batch,
                                                                          .length = length,
                                                                          .cols = width,
                                                                          .vocabulary = tables.vocabulary,
                                                                          .wte_rows = tables.wte_rows,
                                                                          .wpe_rows = tables.wpe_rows,
                                                                          .accumulate_dwte = dwte.first ? 0 : 1,
                                                                          .accumulate_dwpe = dwpe.first ? 0 : 1,
                                                                          .dtype = dy.dtype()});
    c.contributed(tables.wte);
    c.contributed(tables.wpe);
  });
  return y;
}

Tensor layernorm(Context& context, Tensor x, ParamId gamma, ParamId beta) {
  context.begin("layernorm", x.shape(), pass_cost(x.shape(), 8, 2, x.dtype()), pass_cost(x.shape(), 16, 4, x.dtype()));
  Tensor y = context.make(x.shape());
  Tensor stats = make_stats(context, x.shape().rows());
  layernorm_forward(context, x.data(), nullptr, x, stats, y, gamma, beta);

  context.end([x = std::move(x), stats = std::move(stats), y = TensorRef(y), gamma, beta](Context& c) {
    const Context::Grad dy = c.take_grad(y);
    if (!dy.tensor.defined()) return;
    const Tensor dx = layernorm_backward(c, x, stats, dy, gamma, beta);
    c.give_grad(x, dx, true);
  });
  return y;
}

Normed residual_layernorm(Context& context, const Tensor& x, const Tensor& branch, ParamId gamma, ParamId beta) {
  require(x.shape() == branch.shape(), "nn::residual_layernorm: x and branch differ in shape");
  context.begin("residual_layernorm", x.shape(), pass_cost(x.shape(), 9, 4, x.dtype()),
                pass_cost(x.shape(), 17, 4, x.dtype()));
  Tensor sum = context.make(x.shape());
  Tensor y = context.make(x.shape());
  Tensor stats = make_stats(context, x.shape().rows());
  layernorm_forward(context, x.data(), branch.data(), sum, stats, y, gamma, beta);

  context.end([x = TensorRef(x), branch = TensorRef(branch), sum, stats = std::move(stats), y = TensorRef(y), gamma,
               beta](Context& c) {
    const Context::Grad dy = c.take_grad(y);
    Tensor dx;
    if (dy.tensor.defined()) {
      dx = layernorm_backward(c, sum, stats, dy, gamma, beta);
    } else {
      dx = c.take_grad(sum).tensor;
      if (!dx.defined()) return;
    }
    const bool x_first = x.id < branch.id;
    c.give_grad(x, dx, x_first);
    c.give_grad(branch, dx, !x_first);
  });
  return {sum, y};
}

Tensor dropout(Context& context, Tensor x, double probability, std::uint32_t operation,
               const std::int64_t* first_sample) {
  if (probability == 0 || !context.training()) return x;
  DropoutArgs args{.rows = x.shape().dim[0],
                   .cols = x.shape().elements() / x.shape().dim[0],
                   .first_sample = first_sample,
                   .state = context.options().state,
                   .seed = context.options().seed,
                   .operation = operation,
                   .dtype = x.dtype()};
  set_probability(args, probability);
  const Cost cost = pass_cost(x.shape(), 1, 2, x.dtype());
  context.begin("dropout", x.shape(), cost, cost);
  Tensor y = context.make(x.shape());
  args.x = x.data();
  args.y = y.data();
  context.run(kernels::dropout, args);

  context.end([x = TensorRef(x), y = TensorRef(y), args](Context& c) mutable {
    const Context::Grad dy = c.take_grad(y);
    if (!dy.tensor.defined()) return;
    const Tensor dx = dy.writable ? dy.tensor : c.make(x.shape, x.dtype);
    args.x = dy.tensor.data();
    args.y = dx.data();
    c.run(kernels::dropout, args);
    c.give_grad(x, dx, true);
  });
  return y;
}

Tensor attention(Context& context, Tensor qkv, std::int64_t heads) {
  const Shape& in = qkv.shape();
  require(in.rank == 3 && heads > 0 && in.last() % (3 * heads) == 0,
          "nn::attention: qkv must be [batch, length, 3 x heads x head size]");
  const std::int64_t batch = in.dim[0], length = in.dim[1], width = in.last() / 3;
  const Shape shape{batch, length, width};
  // Two products of length x length scores with the mask's half of them left out; backward does five.
  Cost cost = pass_cost(shape, 2 * static_cast<double>(length), 4, qkv.dtype());
  Cost backward_cost = pass_cost(shape, 5 * static_cast<double>(length), 8, qkv.dtype());
  Tensor y, lse;
  const bool known = context.recall({&y, &lse});
  context.begin("attention", shape, known ? Cost{} : cost, backward_cost);
  if (!known) {
    y = context.make(shape);
    lse = context.make({batch, heads, length}, DType::f32);
    context.run(kernels::attention_forward, AttentionForwardArgs{.qkv = qkv.data(),
                                                                 .y = y.data(),
                                                                 .lse = lse.as<float>(),
                                                                 .batch = batch,
                                                                 .length = length,
                                                                 .heads = heads,
                                                                 .head_size = width / heads,
                                                                 .dtype = y.dtype()});
    context.keep({y, lse});
  }

  context.end([qkv = std::move(qkv), y, lse = std::move(lse)](Context& c) {
    const Tensor dy = c.take_grad(y).tensor;
    if (!dy.defined()) return;
    const Tensor dqkv = c.make(qkv.shape(), qkv.dtype());
    const Shape& scores = lse.shape();
    c.run_with_scratch(kernels::attention_backward, AttentionBackwardArgs{.dy = dy.data(),
                                                                          .qkv = qkv.data(),
                                                                          .y = y.data(),
                                                                          .lse = lse.as<float>(),
                                                                          .dqkv = dqkv.data(),
                                                                          .batch = scores.dim[0],
                                                                          .length = scores.dim[2],
                                                                          .heads = scores.dim[1],
                                                                          .head_size = y.shape().last() / scores.dim[1],
                                                                          .dtype = y.dtype()});
    c.give_grad(qkv, dqkv, true);
  });
  return y;
}

}  // namespace lockstep::nn
