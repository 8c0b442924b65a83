#include "kernels/grad_norm/grad_norm.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  require(args.report != nullptr, "grad_norm: report is null");
  require(args.begin % norm_chunk == 0, "grad_norm: begin must be a multiple of norm_chunk");
  require(args.count == 0 || (args.chunk_sums != nullptr && args.chunk_bad != nullptr),
          "grad_norm: the scratch for chunks is null");
  require(args.count == 0 || is_valid(args.grad),
          "grad_norm: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  check(exec.table->grad_norm(exec, args));
}

}  // namespace lockstep::kernels
