#pragma once

#include <compare>

#include "kernels/matmul/matmul.hpp"

namespace lockstep::kernels {

/// A factor as a column-major library sees it: element (i, j) at data[i + j * ld].
struct ColumnMajorMatrix {
  const void* data = nullptr;
  std::int64_t rows = 0;  ///< as stored
  std::int64_t cols = 0;
  std::int64_t ld = 0;
  bool transpose = false;  ///< op() transposes it
};

/// out [rows, cols] (+)= op(left) [rows, depth] op(right) [depth, cols] (+ bias [rows], in every column).
struct ColumnMajorProduct {
  ColumnMajorMatrix left;
  ColumnMajorMatrix right;
  const void* bias = nullptr;
  void* out = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t depth = 0;
  std::int64_t out_ld = 0;
};

/// The same product for a library that counts by columns: a row-major matrix is the transpose of a column-major one in
/// the same memory, so c' = op(b)' op(a)', and nothing is moved.
[[nodiscard]] ColumnMajorProduct column_major(const MatmulArgs& args);

/// All that a library's choice of a way to do a product depends on; equal keys may share one plan.
struct MatmulKey {
  std::int64_t rows = 0, cols = 0, depth = 0;
  std::int64_t left_ld = 0, right_ld = 0, out_ld = 0;
  /// Powers of two, at most 256: every column of the matrix begins on a multiple of so many bytes.
  std::int32_t left_alignment = 0, right_alignment = 0, out_alignment = 0, bias_alignment = 0;
  DType dtype = DType::f32, out_dtype = DType::f32;
  bool left_transpose = false, right_transpose = false;
  bool accumulate = false;
  bool bias = false;   ///< added by the library itself
  bool tuned = false;  ///< chosen by the time it takes
  auto operator<=>(const MatmulKey&) const = default;
};

/// args.bias counts as the library's own where `fused_bias` says so, and is else left out.
[[nodiscard]] MatmulKey matmul_key(const MatmulArgs& args, bool fused_bias, bool tuned);

/// Whether libraries add this bias themselves: it must be of c's type and on a multiple of 16 bytes.
[[nodiscard]] bool can_fuse_bias(const MatmulArgs& args);

/// The largest power of two, at most 256, that divides the address and the step in bytes from one column to the next.
[[nodiscard]] std::int32_t alignment_of(const void* data, std::int64_t ld, DType dtype);

}  // namespace lockstep::kernels
