#include "kernels/grad_norm/grad_norm.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void grad_leaf_sums(const Exec& exec, const GradLeafSumsArgs& args) {
  if (args.leaf_count == 0) return;
  require(args.leaves != nullptr && args.sums != nullptr && args.bad != nullptr,
          "grad_leaf_sums: leaves, sums or bad is null");
  require(is_valid(args.grad), "grad_leaf_sums: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  check(exec.table->grad_leaf_sums(exec, args));
}

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  require(args.report != nullptr, "grad_norm: report is null");
  require(args.sum_count == 0 || args.sums != nullptr, "grad_norm: sums is null");
  require(args.sum_count <= max_norm_leaves, "grad_norm: more than 2^23 leaves");
  require(args.bad_count == 0 || args.bad != nullptr, "grad_norm: bad is null");
  check(exec.table->grad_norm(exec, args));
}

}  // namespace lockstep::kernels
