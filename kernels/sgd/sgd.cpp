#include "kernels/sgd/sgd.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void sgd(const Exec& exec, const SgdArgs& args) {
  if (args.tile_count == 0) return;
  require(args.master != nullptr, "sgd: master is null");
  require(args.tiles != nullptr && args.groups != nullptr && args.state != nullptr,
          "sgd: tiles, groups or state is null");
  require(is_valid(args.grad), "sgd: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "sgd: the parameters' copy is bf16 or fp16");
  check(exec.table->sgd(exec, args));
}

}  // namespace lockstep::kernels
