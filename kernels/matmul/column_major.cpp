#include "kernels/matmul/column_major.hpp"

#include <bit>
#include <cstdint>

namespace lockstep::kernels {

ColumnMajorProduct column_major(const MatmulArgs& args) {
  const bool ta = args.transpose_a != 0, tb = args.transpose_b != 0;
  // Stored by rows as [r, c] with a width of ld, it is stored by columns as [c, r] with the same ld.
  return {
      .left =
          {.data = args.b, .rows = tb ? args.k : args.n, .cols = tb ? args.n : args.k, .ld = args.ldb, .transpose = tb},
      .right =
          {.data = args.a, .rows = ta ? args.m : args.k, .cols = ta ? args.k : args.m, .ld = args.lda, .transpose = ta},
      .bias = args.bias,
      .out = args.c,
      .rows = args.n,
      .cols = args.m,
      .depth = args.k,
      .out_ld = args.ldc};
}

std::int32_t alignment_of(const void* data, std::int64_t ld, DType dtype) {
  const std::uint64_t bits =
      reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uint64_t>(ld) * size_of(dtype) | 256;
  return std::int32_t{1} << std::countr_zero(bits);
}

bool can_fuse_bias(const MatmulArgs& args) {
  return args.bias != nullptr && args.dtype == args.c_dtype && alignment_of(args.bias, 0, args.dtype) >= 16;
}

MatmulKey matmul_key(const MatmulArgs& args, bool fused_bias, bool tuned) {
  const ColumnMajorProduct product = column_major(args);
  return {.rows = product.rows,
          .cols = product.cols,
          .depth = product.depth,
          .left_ld = product.left.ld,
          .right_ld = product.right.ld,
          .out_ld = product.out_ld,
          .left_alignment = alignment_of(product.left.data, product.left.ld, args.dtype),
          .right_alignment = alignment_of(product.right.data, product.right.ld, args.dtype),
          .out_alignment = alignment_of(product.out, product.out_ld, args.c_dtype),
          .bias_alignment = fused_bias ? alignment_of(args.bias, 0, args.dtype) : 0,
          .dtype = args.dtype,
          .out_dtype = args.c_dtype,
          .left_transpose = product.left.transpose,
          .right_transpose = product.right.transpose,
          .accumulate = args.accumulate != 0,
          .bias = fused_bias,
          .tuned = tuned};
}

}  // namespace lockstep::kernels
