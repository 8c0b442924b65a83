#include "kernels/adagrad/adagrad.hpp"

#include "core/error.hpp"
#include "kernels/grad_sum.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void adagrad(const Exec& exec, const AdagradArgs& args) {
  if (args.tile_count == 0) return;
  require(args.master != nullptr && args.sum != nullptr, "adagrad: master or sum is null");
  require(args.tiles != nullptr && args.groups != nullptr && args.state != nullptr,
          "adagrad: tiles, groups or state is null");
  require(is_valid(args.grad), "adagrad: 1 to 8 gradient sources of fp32, bf16 or fp16, none null");
  require(args.param16 == nullptr || args.param16_dtype == DType::bf16 || args.param16_dtype == DType::f16,
          "adagrad: the parameters' copy is bf16 or fp16");
  check(exec.table->adagrad(exec, args));
}

}  // namespace lockstep::kernels
