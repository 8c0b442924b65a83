#include "kernels/elementwise/elementwise.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void cast(const Exec& exec, const CastArgs& args) {
  if (args.count == 0) return;
  require(args.from != nullptr && args.to != nullptr, "cast: from or to is null");
  require(is_compute_dtype(args.from_dtype) && is_compute_dtype(args.to_dtype), "cast: types are fp32, bf16 or fp16");
  check(exec.table->cast(exec, args));
}

void axpy(const Exec& exec, const AxpyArgs& args) {
  if (args.count == 0) return;
  require(args.x != nullptr && args.y != nullptr, "axpy: x or y is null");
  require(is_compute_dtype(args.x_dtype) && is_compute_dtype(args.y_dtype), "axpy: types are fp32, bf16 or fp16");
  check(exec.table->axpy(exec, args));
}

void scale(const Exec& exec, const ScaleArgs& args) {
  if (args.count == 0) return;
  require(args.y != nullptr, "scale: y is null");
  require(is_compute_dtype(args.dtype), "scale: the type is fp32, bf16 or fp16");
  check(exec.table->scale(exec, args));
}

void ordered_sum(const Exec& exec, const OrderedSumArgs& args) {
  if (args.count == 0) return;
  require(args.to != nullptr, "ordered_sum: to is null");
  require(is_valid(args.sources) && is_compute_dtype(args.to_dtype),
          "ordered_sum: 1 to 8 sources, none null; types are fp32, bf16 or fp16");
  check(exec.table->ordered_sum(exec, args));
}

}  // namespace lockstep::kernels
