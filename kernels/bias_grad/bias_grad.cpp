#include "kernels/bias_grad/bias_grad.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void bias_grad(const Exec& exec, const BiasGradArgs& args) {
  require(is_compute_dtype(args.dtype), "bias_grad: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols >= 0, "bias_grad: rows and cols must be >= 0");
  if (args.cols == 0 || (args.rows == 0 && args.accumulate != 0)) return;
  require(args.dbias != nullptr && (args.rows == 0 || args.dy != nullptr) && has_scratch(exec, args),
          "bias_grad: dy, dbias and scratch are needed");
  check(exec.table->bias_grad(exec, args));
}

}  // namespace lockstep::kernels
