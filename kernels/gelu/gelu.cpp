#include "kernels/gelu/gelu.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void gelu_forward(const Exec& exec, const GeluForwardArgs& args) {
  require(is_compute_dtype(args.dtype), "gelu_forward: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols >= 0, "gelu_forward: rows and cols must be >= 0");
  if (args.rows == 0 || args.cols == 0) return;
  require(args.x != nullptr && args.y != nullptr, "gelu_forward: x and y are needed");
  require((args.bias == nullptr) == (args.pre == nullptr),
          "gelu_forward: pre is given exactly when bias is: backward needs x + bias");
  require(args.pre != args.y || args.pre == nullptr, "gelu_forward: pre and y must differ");
  check(exec.table->gelu_forward(exec, args));
}

void gelu_backward(const Exec& exec, const GeluBackwardArgs& args) {
  require(is_compute_dtype(args.dtype), "gelu_backward: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols >= 0, "gelu_backward: rows and cols must be >= 0");
  if (args.cols == 0 || (args.rows == 0 && (args.dbias == nullptr || args.accumulate != 0))) return;
  require(args.rows == 0 || (args.dy != nullptr && args.pre != nullptr && args.dx != nullptr),
          "gelu_backward: dy, pre and dx are needed");
  require(args.dbias == nullptr || has_scratch(exec, args), "gelu_backward: dbias needs scratch");
  check(exec.table->gelu_backward(exec, args));
}

}  // namespace lockstep::kernels
