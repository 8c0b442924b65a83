#include "kernels/squared_error/squared_error.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void squared_error(const Exec& exec, const SquaredErrorArgs& args) {
  require(is_compute_dtype(args.dtype), "squared_error: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.cols > 0, "squared_error: rows must be >= 0 and cols > 0");
  if (args.rows == 0) return;
  require(args.predictions != nullptr && args.values != nullptr && args.targets != nullptr && args.losses != nullptr &&
              args.sum != nullptr,
          "squared_error: predictions, values, targets, losses and sum are needed");
  require(args.want_grad == 0 || args.grad_factor != nullptr, "squared_error: a gradient needs its factor");
  check(exec.table->squared_error(exec, args));
}

}  // namespace lockstep::kernels
