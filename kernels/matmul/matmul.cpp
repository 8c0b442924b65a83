#include "kernels/matmul/matmul.hpp"

#include "core/error.hpp"
#include "kernels/table.hpp"

namespace lockstep::kernels {

void matmul(const Exec& exec, const MatmulArgs& args) {
  const std::int64_t width_a = args.transpose_a != 0 ? args.m : args.k;
  const std::int64_t width_b = args.transpose_b != 0 ? args.k : args.n;
  require(exec.table != nullptr && exec.threads >= 1, "matmul: exec has no kernel table or fewer than 1 thread");
  require(args.m >= 0 && args.n >= 0 && args.k >= 0, "matmul: a size is negative");
  require(args.dtype == DType::f32 || args.dtype == DType::bf16 || args.dtype == DType::f16,
          "matmul: a and b must be f32, bf16 or f16");
  require(args.c_dtype == DType::f32 || args.c_dtype == args.dtype, "matmul: c must be f32 or of the dtype of a and b");
  if (args.m == 0 || args.n == 0) return;
  require(args.c != nullptr && (args.k == 0 || (args.a != nullptr && args.b != nullptr)), "matmul: a buffer is null");
  require(args.lda >= width_a && args.ldb >= width_b && args.ldc >= args.n,
          "matmul: a leading dimension is smaller than the stored width of its matrix");
  check(exec.table->matmul(exec, args));
}

}  // namespace lockstep::kernels
