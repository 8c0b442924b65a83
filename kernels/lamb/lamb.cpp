#include "kernels/lamb/lamb.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void lamb(const Exec& exec, const LambArgs& args) {
  if (args.tile_count == 0) return;
  require(args.master != nullptr && args.m != nullptr && args.v != nullptr, "lamb: master, m or v is null");
  require(args.tiles != nullptr && args.groups != nullptr && args.state != nullptr,
          "lamb: tiles, groups or state is null");
  require(args.tensors != nullptr && args.tensor_count > 0 && args.squares != nullptr && args.steps != nullptr,
          "lamb: tensors or scratch is null");
  require(is_valid(args.grad), "lamb: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "lamb: the parameters' copy is bf16 or fp16");
  check(exec.table->lamb(exec, args));
}

}  // namespace lockstep::kernels
