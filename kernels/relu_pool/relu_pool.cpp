#include "kernels/relu_pool/relu_pool.hpp"

#include "core/error.hpp"
#include "kernels/element.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {
namespace {

void check_shape(const PoolShape& s, DType dtype) {
  require(is_compute_dtype(dtype), "relu_pool: dtype must be f32, bf16 or f16");
  require(s.batch >= 0 && s.height > 0 && s.width > 0 && s.channels > 0 && s.pool > 0,
          "relu_pool: batch must be >= 0 and all other sizes > 0");
  require(s.out_height() > 0 && s.out_width() > 0, "relu_pool: no window fits into the image");
}

}  // namespace

void relu_pool_forward(const Exec& exec, const ReluPoolForwardArgs& args) {
  check_shape(args.shape, args.dtype);
  if (args.shape.batch == 0) return;
  require(args.pre != nullptr && args.bias != nullptr && args.y != nullptr,
          "relu_pool_forward: pre, bias and y are needed");
  check(exec.table->relu_pool_forward(exec, args));
}

void relu_pool_backward(const Exec& exec, const ReluPoolBackwardArgs& args) {
  check_shape(args.shape, args.dtype);
  if (args.shape.batch == 0) return;
  require(args.dy != nullptr && args.pre != nullptr && args.bias != nullptr && args.dpre != nullptr,
          "relu_pool_backward: dy, pre, bias and dpre are needed");
  check(exec.table->relu_pool_backward(exec, args));
}

}  // namespace lockstep::kernels
