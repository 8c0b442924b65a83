#include "kernels/lion/lion.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void lion(const Exec& exec, const LionArgs& args) {
  if (args.tile_count == 0) return;
  require(args.master != nullptr && args.m != nullptr, "lion: master or m is null");
  require(args.tiles != nullptr && args.groups != nullptr && args.state != nullptr,
          "lion: tiles, groups or state is null");
  require(is_valid(args.grad), "lion: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "lion: the parameters' copy is bf16 or fp16");
  check(exec.table->lion(exec, args));
}

}  // namespace lockstep::kernels
