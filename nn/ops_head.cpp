// What a model ends in: losses, and the logits of generation.
#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "nn/op_cost.hpp"
#include "nn/ops.hpp"

namespace lockstep::nn {
namespace {

/// Null while planning.
std::byte* row_of(const Tensor& tensor, std::int64_t row) {
  auto* const data = tensor.as<std::byte>();
  if (data == nullptr) return nullptr;
  return data + static_cast<std::size_t>(row * tensor.shape().last()) * size_of(tensor.dtype());
}

/// The head's products over all rows of x; each member does a chunk of them.
class Head {
 public:
  Head(Context& context, const Tensor& x, const TiedHead& head, std::int64_t chunk_rows)
      : context_(context),
        x_(x),
        head_(head),
        logits_(context.make({std::min(chunk_rows, x.shape().rows()), head.rows}, x.dtype())),
        losses_(context.make({logits_.shape().rows()}, DType::f32)) {}

  /// Calls `work(first row, rows)` for each chunk.
  template <class Work>
  void for_each_chunk(Work work) const {
    const std::int64_t rows = x_.shape().rows(), most = logits_.shape().rows();
    for (std::int64_t first = 0; first < rows; first += most) work(first, std::min(most, rows - first));
  }

  void logits(std::int64_t first, std::int64_t rows) {
    MatmulArgs args = product(rows, head_.rows, width());
    args.a = row_of(x_, first);
    args.b = context_.value(head_.wte);
    args.c = logits_.data();
    args.transpose_b = 1;
    args.b_param = head_.wte;
    args.b_version = context_.version(head_.wte);
    context_.run(kernels::matmul, args);
  }
  /// In training the logits become their gradient.
  void losses(std::int64_t first, std::int64_t rows, const Targets& targets) {
    context_.run(kernels::cross_entropy,
                 CrossEntropyArgs{.logits = logits_.data(),
                                  .targets = targets.target == nullptr ? nullptr : targets.target + first,
                                  .losses = losses_.as<float>(),
                                  .sum = context_.options().loss,
                                  .rows = rows,
                                  .first_row = first,
                                  .classes = head_.classes,
                                  .stride = head_.rows,
                                  .want_grad = context_.training() ? 1 : 0,
                                  .grad_factor = targets.grad_factor,
                                  .state = context_.options().state,
                                  .dtype = logits_.dtype()});
  }
  /// dwte (+)= dlogits^T x
  void weight_grad(std::int64_t first, std::int64_t rows, const GradView& dwte) {
    MatmulArgs args = product(head_.rows, width(), rows);
    args.a = logits_.data();
    args.lda = head_.rows;
    args.b = row_of(x_, first);
    args.c = dwte.data;
    args.transpose_a = 1;
    args.accumulate = dwte.first && first == 0 ? 0 : 1;
    args.c_dtype = DType::f32;
    context_.run(kernels::matmul, args);
  }
  /// dx <- dlogits wte
  void input_grad(std::int64_t first, std::int64_t rows, const Tensor& dx) {
    MatmulArgs args = product(rows, width(), head_.rows);
    args.a = logits_.data();
    args.b = context_.value(head_.wte);
    args.c = row_of(dx, first);
    args.b_param = head_.wte;
    args.b_version = context_.version(head_.wte);
    context_.run(kernels::matmul, args);
  }

 private:
  [[nodiscard]] std::int64_t width() const { return x_.shape().last(); }
  [[nodiscard]] MatmulArgs product(std::int64_t m, std::int64_t n, std::int64_t k) const {
    return {.m = m, .n = n, .k = k, .lda = k, .ldb = width(), .ldc = n, .dtype = x_.dtype(), .c_dtype = x_.dtype()};
  }
  Context& context_;
  const Tensor& x_;
  const TiedHead& head_;
  Tensor logits_;  ///< of one chunk
  Tensor losses_;  ///< of its rows
};

void head_loss_backward(Context& context, Tensor x, const TiedHead& tied, const Targets& targets,
                        std::int64_t chunk_rows) {
  // A chunk of x has been used for the last time when its gradient is computed.
  const Tensor dx = x.shared() ? context.make(x.shape(), x.dtype()) : x;
  {
    Head head(context, x, tied, chunk_rows);
    const GradView dwte = context.grad(tied.wte);
    head.for_each_chunk([&](std::int64_t first, std::int64_t rows) {
      head.logits(first, rows);
      head.losses(first, rows, targets);
      head.weight_grad(first, rows, dwte);
      head.input_grad(first, rows, dx);
    });
  }
  context.contributed(tied.wte);
  context.give_grad(x, dx, true);
}

}  // namespace

std::int64_t head_chunk_rows(std::int64_t rows, std::int64_t columns, DType dtype) {
  constexpr std::int64_t most_bytes = std::int64_t{64} << 20;
  constexpr std::int64_t block = loss_rows_per_block;
  const std::int64_t row_bytes = columns * static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t most = std::max(block, most_bytes / row_bytes / block * block);
  const std::int64_t chunks = std::max(std::int64_t{1}, (rows + most - 1) / most);
  return std::max(block, (rows + block * chunks - 1) / (block * chunks) * block);
}

void head_loss(Context& context, Tensor x, const TiedHead& head, const Targets& targets, std::int64_t chunk_rows) {
  require(head.classes > 0 && head.classes <= head.rows, "nn::head_loss: more classes than rows of wte");
  require(chunk_rows > 0 && chunk_rows % loss_rows_per_block == 0,
          "nn::head_loss: chunk_rows must be a multiple of loss_rows_per_block, or the sum of losses depends on it");
  const std::int64_t rows = x.shape().rows();
  const Cost product = matmul_cost(rows, head.rows, x.shape().last(), x.dtype());
  Cost forward = pass_cost({rows, head.rows}, 6, 3, x.dtype());
  forward += product;
  context.begin("head_loss", {rows, head.rows}, forward, twice(product));
  if (!context.training()) {
    Head chunks(context, x, head, chunk_rows);
    chunks.for_each_chunk([&](std::int64_t first, std::int64_t count) {
      chunks.logits(first, count);
      chunks.losses(first, count, targets);
    });
  }
  context.end([x = std::move(x), head, targets, chunk_rows](Context& c) mutable {
    head_loss_backward(c, std::move(x), head, targets, chunk_rows);
  });
}

Tensor last_logits(Context& context, const Tensor& x, const TiedHead& head) {
  require(!context.training(), "nn::last_logits: has no backward half; head_loss is what training ends in");
  require(x.shape().rank == 3 && x.shape().dim[1] > 0, "nn::last_logits: x must be [batch, length, width]");
  const std::int64_t batch = x.shape().dim[0], length = x.shape().dim[1], width = x.shape().last();
  const Shape shape{batch, head.rows};
  context.begin("last_logits", shape, matmul_cost(batch, head.rows, width, x.dtype()), {});
  Tensor logits = context.make(shape);
  // The last position of each sample: rows that lie `length` apart.
  context.run(kernels::matmul, MatmulArgs{.a = row_of(x, length - 1),
                                          .b = context.value(head.wte),
                                          .c = logits.data(),
                                          .m = batch,
                                          .n = head.rows,
                                          .k = width,
                                          .lda = length * width,
                                          .ldb = width,
                                          .ldc = head.rows,
                                          .transpose_b = 1,
                                          .dtype = x.dtype(),
                                          .c_dtype = logits.dtype(),
                                          .b_param = head.wte,
                                          .b_version = context.version(head.wte)});
  context.end({});
  return logits;
}

void accuracy(Context& context, const Tensor& logits, const Targets& targets, std::int64_t classes) {
  if (context.training()) return;
  require(classes > 0 && classes <= logits.shape().last(), "nn::accuracy: more classes than columns of logits");
  context.begin(accuracy_op, logits.shape(), pass_cost(logits.shape(), 1, 1, logits.dtype()), {});
  context.run(kernels::accuracy, AccuracyArgs{.logits = logits.data(),
                                              .targets = targets.target,
                                              .correct = context.options().correct,
                                              .rows = logits.shape().rows(),
                                              .classes = classes,
                                              .stride = logits.shape().last(),
                                              .dtype = logits.dtype()});
  context.end({});
}

void squared_error(Context& context, Tensor predictions, const float* values, const Targets& targets) {
  const ContextOptions& options = context.options();
  const Shape& shape = predictions.shape();
  context.begin("squared_error", shape, pass_cost(shape, 4, 3, predictions.dtype()), {});
  {
    const Tensor losses = context.make({shape.rows()}, DType::f32);
    context.run(kernels::squared_error, SquaredErrorArgs{.predictions = predictions.data(),
                                                         .values = values,
                                                         .targets = targets.target,
                                                         .losses = losses.as<float>(),
                                                         .sum = options.loss,
                                                         .rows = shape.rows(),
                                                         .cols = shape.last(),
                                                         .want_grad = context.training() ? 1 : 0,
                                                         .grad_factor = targets.grad_factor,
                                                         .state = options.state,
                                                         .dtype = predictions.dtype()});
  }
  context.end([predictions = std::move(predictions)](Context& c) { c.give_grad(predictions, predictions, true); });
}

void cross_entropy(Context& context, Tensor logits, const Targets& targets, std::int64_t classes) {
  const ContextOptions& options = context.options();
  const std::int64_t rows = logits.shape().rows();
  require(classes > 0 && classes <= logits.shape().last(), "nn::cross_entropy: more classes than columns of logits");
  context.begin("cross_entropy", logits.shape(), pass_cost(logits.shape(), 6, 3, logits.dtype()), {});
  {
    const Tensor losses = context.make({rows}, DType::f32);
    context.run(kernels::cross_entropy, CrossEntropyArgs{.logits = logits.data(),
                                                         .targets = targets.target,
                                                         .losses = losses.as<float>(),
                                                         .sum = options.loss,
                                                         .rows = rows,
                                                         .classes = classes,
                                                         .stride = logits.shape().last(),
                                                         .want_grad = context.training() ? 1 : 0,
                                                         .grad_factor = targets.grad_factor,
                                                         .state = options.state,
                                                         .dtype = logits.dtype()});
  }

  context.end([logits = std::move(logits)](Context& c) { c.give_grad(logits, logits, true); });
}

}  // namespace lockstep::nn
