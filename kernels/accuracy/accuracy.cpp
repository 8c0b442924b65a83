#include "kernels/accuracy/accuracy.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void accuracy(const Exec& exec, const AccuracyArgs& args) {
  require(is_compute_dtype(args.dtype), "accuracy: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.classes > 0 && args.stride >= args.classes,
          "accuracy: rows must be >= 0 and 0 < classes <= stride");
  if (args.rows == 0) return;
  require(args.logits != nullptr && args.targets != nullptr && args.correct != nullptr,
          "accuracy: logits, targets and correct are needed");
  check(exec.table->accuracy(exec, args));
}

}  // namespace lockstep::kernels
