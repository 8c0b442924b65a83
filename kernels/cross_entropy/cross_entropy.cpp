#include "kernels/cross_entropy/cross_entropy.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void cross_entropy(const Exec& exec, const CrossEntropyArgs& args) {
  require(is_compute_dtype(args.dtype), "cross_entropy: dtype must be f32, bf16 or f16");
  require(args.rows >= 0 && args.classes > 0 && args.stride >= args.classes,
          "cross_entropy: rows must be >= 0 and 0 < classes <= stride");
  require(args.stride < (std::int64_t{1} << 31), "cross_entropy: rows of more than 2^31 - 1 logits");
  if (args.rows == 0) return;
  require(args.logits != nullptr && args.targets != nullptr && args.losses != nullptr && args.sum != nullptr,
          "cross_entropy: logits, targets, losses and sum are needed");
  require(args.want_grad == 0 || args.grad_factor != nullptr, "cross_entropy: a gradient needs its factor");
  // Where the host can read the targets. (Device kernels give NaN for a target outside.)
  if (exec.device != nullptr && exec.device->memory() == Memory::host)
    for (std::int64_t r = 0; r < args.rows; ++r)
      if (args.targets[r] < -1 || args.targets[r] >= args.classes)
        fail(ErrorKind::data, "target {} of row {} is outside the {} classes: the data and the model disagree",
             args.targets[r], args.first_row + r, args.classes);
  check(exec.table->cross_entropy(exec, args));
}

}  // namespace lockstep::kernels
