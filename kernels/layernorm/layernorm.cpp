#include "kernels/layernorm/layernorm.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void layernorm_forward(const Exec& exec, const LayernormForwardArgs& args) {
  require(is_compute_dtype(args.dtype), "layernorm_forward: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols > 0, "layernorm_forward: rows must be >= 0 and cols > 0");
  require(args.gamma != nullptr && args.beta != nullptr, "layernorm_forward: gamma and beta are needed");
  require(args.rows == 0 || (args.x != nullptr && args.y != nullptr && args.mean != nullptr && args.rstd != nullptr),
          "layernorm_forward: x, y, mean and rstd are needed");
  require(args.residual == nullptr || args.sum != nullptr, "layernorm_forward: a residual needs a place for the sum");
  if (args.rows == 0) return;
  check(exec.table->layernorm_forward(exec, args));
}

void layernorm_backward(const Exec& exec, const LayernormBackwardArgs& args) {
  require(is_compute_dtype(args.dtype), "layernorm_backward: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols > 0, "layernorm_backward: rows must be >= 0 and cols > 0");
  require(args.dgamma != nullptr && args.dbeta != nullptr && has_scratch(exec, args),
          "layernorm_backward: dgamma, dbeta and scratch are needed");
  require(args.rows == 0 || (args.dy != nullptr && args.x != nullptr && args.gamma != nullptr && args.mean != nullptr &&
                             args.rstd != nullptr && args.dx != nullptr),
          "layernorm_backward: dy, x, gamma, mean, rstd and dx are needed");
  check(exec.table->layernorm_backward(exec, args));
}

}  // namespace lockstep::kernels
