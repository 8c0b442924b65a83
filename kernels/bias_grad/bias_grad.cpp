#include "kernels/bias_grad/bias_grad.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep {

std::size_t bias_grad_scratch(std::int64_t rows, std::int64_t cols) {
  const std::int64_t blocks = (rows + bias_grad_rows_per_block - 1) / bias_grad_rows_per_block;
  return static_cast<std::size_t>(blocks * cols) * sizeof(float);
}

namespace kernels {

void bias_grad(const Exec& exec, const BiasGradArgs& args) {
  require(is_compute_dtype(args.dtype), "bias_grad: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols >= 0, "bias_grad: rows and cols must be >= 0");
  if (args.cols == 0 || (args.rows == 0 && args.accumulate != 0)) return;
  require(args.dbias != nullptr && (args.rows == 0 || (args.dy != nullptr && args.scratch != nullptr)),
          "bias_grad: dy, dbias and scratch are needed");
  check(exec.table->bias_grad(exec, args));
}

}  // namespace kernels
}  // namespace lockstep
