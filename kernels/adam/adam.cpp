#include "kernels/adam/adam.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void adam(const Exec& exec, const AdamArgs& args) {
  if (args.tile_count == 0) return;
  require(args.master != nullptr && args.m != nullptr && args.v != nullptr, "adam: master, m or v is null");
  require(args.tiles != nullptr && args.groups != nullptr && args.state != nullptr,
          "adam: tiles, groups or state is null");
  require(is_valid(args.grad), "adam: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "adam: the parameters' copy is bf16 or fp16");
  check(exec.table->adam(exec, args));
}

}  // namespace lockstep::kernels
