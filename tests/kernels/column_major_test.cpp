// A row-major product as a column-major library is given it: checked with a plain column-major product.
#include "kernels/matmul/column_major.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "kernels/declare.hpp"
#include "kernels/matmul/matmul_start.hpp"
#include "tests/support/kernel_backends.hpp"

namespace lockstep::testing {
namespace {

using kernels::ColumnMajorMatrix;
using kernels::ColumnMajorProduct;
using kernels::MatmulKey;

/// Element (i, j) of op(matrix), after checking that it lies in the matrix as described.
double element_of(const ColumnMajorMatrix& matrix, std::int64_t i, std::int64_t j) {
  if (matrix.transpose) std::swap(i, j);
  EXPECT_TRUE(i >= 0 && i < matrix.rows && j >= 0 && j < matrix.cols && matrix.rows <= matrix.ld);
  return static_cast<double>(static_cast<const float*>(matrix.data)[i + j * matrix.ld]);
}

/// What a library like cuBLAS computes, by its definition.
void multiply_by_columns(const ColumnMajorProduct& product, bool accumulate) {
  auto* out = static_cast<float*>(product.out);
  for (std::int64_t j = 0; j < product.cols; ++j)
    for (std::int64_t i = 0; i < product.rows; ++i) {
      double sum = 0.0;
      for (std::int64_t p = 0; p < product.depth; ++p)
        sum += element_of(product.left, i, p) * element_of(product.right, p, j);
      if (product.bias != nullptr) sum += static_cast<double>(static_cast<const float*>(product.bias)[i]);
      float& c = out[i + j * product.out_ld];
      c = static_cast<float>(accumulate ? static_cast<double>(c) + sum : sum);
    }
}

std::vector<float> values(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> small(-8, 8);  // sums of their products are exact
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) x = static_cast<float>(small(random));
  return result;
}

TEST(ColumnMajor, IsTheRowMajorProductInEveryLayout) {
  for (int options = 0; options < 32; ++options) {
    const bool ta = (options & 1) != 0, tb = (options & 2) != 0, accumulate = (options & 4) != 0;
    const bool bias = (options & 8) != 0;
    const std::int64_t spare = (options & 16) != 0 ? 3 : 0, m = 5, n = 7, k = 4;
    const std::int64_t lda = (ta ? m : k) + spare, ldb = (tb ? k : n) + spare, ldc = n + spare;
    const auto a = values((ta ? k : m) * lda, 1), b = values((tb ? n : k) * ldb, 2), row = values(n, 3);
    auto by_rows = values(m * ldc, 4), by_columns = by_rows;
    MatmulArgs args = {.a = a.data(),
                       .b = b.data(),
                       .c = by_rows.data(),
                       .bias = bias ? row.data() : nullptr,
                       .m = m,
                       .n = n,
                       .k = k,
                       .lda = lda,
                       .ldb = ldb,
                       .ldc = ldc,
                       .transpose_a = ta,
                       .transpose_b = tb,
                       .accumulate = accumulate};
    kernels::reference::matmul({}, args);
    args.c = by_columns.data();

    multiply_by_columns(kernels::column_major(args), accumulate);

    EXPECT_EQ(by_columns, by_rows) << "options " << options;
  }
}

/// Memory of which only the addresses count.
const void* address(std::uintptr_t at) { return reinterpret_cast<const void*>(at); }

TEST(ColumnMajor, AlignmentIsThatOfEveryColumn) {
  using kernels::alignment_of;
  EXPECT_EQ(alignment_of(address(4096), 1024, DType::f32), 256);
  EXPECT_EQ(alignment_of(address(4096 + 16), 1024, DType::f32), 16);
  EXPECT_EQ(alignment_of(address(4096), 50257, DType::bf16), 2) << "an odd width: every second row";
  EXPECT_EQ(alignment_of(address(4096), 50257, DType::f32), 4);
  EXPECT_EQ(alignment_of(address(4096), 50304, DType::bf16), 256);
  EXPECT_EQ(alignment_of(address(4096), 12, DType::bf16), 8);
  EXPECT_EQ(alignment_of(address(4096), 0, DType::bf16), 256) << "a vector";
}

MatmulArgs some_product() {
  return {.a = address(0x1000),
          .b = address(0x2000),
          .c = const_cast<void*>(address(0x3000)),
          .bias = address(0x4000),
          .m = 96,
          .n = 64,
          .k = 32,
          .lda = 32,
          .ldb = 64,
          .ldc = 64,
          .dtype = DType::bf16,
          .c_dtype = DType::bf16};
}

TEST(MatmulKey, IsEqualWhereOnePlanServes) {
  const MatmulArgs args = some_product();
  MatmulArgs elsewhere = args;
  elsewhere.a = address(0x9000);
  elsewhere.bias = address(0xa000);
  elsewhere.b_param = 5;
  elsewhere.b_version = 7;

  EXPECT_EQ(kernels::matmul_key(args, true, false), kernels::matmul_key(elsewhere, true, false));
}

TEST(MatmulKey, DiffersInAllThatAPlanDependsOn) {
  std::set<MatmulKey> keys = {kernels::matmul_key(some_product(), true, false),
                              kernels::matmul_key(some_product(), false, false),
                              kernels::matmul_key(some_product(), true, true)};
  std::size_t count = keys.size();
  EXPECT_EQ(count, 3U);
  const std::vector<void (*)(MatmulArgs&)> changes = {
      [](MatmulArgs& args) { args.m = 95; },
      [](MatmulArgs& args) { args.n = 63; },
      [](MatmulArgs& args) { args.k = 31; },
      [](MatmulArgs& args) { args.lda = 64; },
      [](MatmulArgs& args) { args.ldb = 96; },
      [](MatmulArgs& args) { args.ldc = 96; },
      [](MatmulArgs& args) { args.transpose_a = 1; },
      [](MatmulArgs& args) { args.transpose_b = 1; },
      [](MatmulArgs& args) { args.accumulate = 1; },
      [](MatmulArgs& args) { args.dtype = args.c_dtype = DType::f16; },
      [](MatmulArgs& args) { args.c_dtype = DType::f32; },
      [](MatmulArgs& args) { args.a = address(0x1008); },
      [](MatmulArgs& args) { args.b = address(0x2002); },
      [](MatmulArgs& args) { args.c = const_cast<void*>(address(0x3004)); },
      [](MatmulArgs& args) { args.bias = address(0x4010); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    MatmulArgs changed = some_product();
    changes[i](changed);
    keys.insert(kernels::matmul_key(changed, true, false));
    EXPECT_EQ(keys.size(), ++count) << "change " << i;
  }
}

TEST(MatmulKey, ABiasIsTheLibrarysOwnWhereItCanBe) {
  MatmulArgs args = some_product();
  EXPECT_TRUE(kernels::can_fuse_bias(args));
  args.c_dtype = DType::f32;
  EXPECT_FALSE(kernels::can_fuse_bias(args)) << "of another type than c";
  args = some_product();
  args.bias = address(0x4008);
  EXPECT_FALSE(kernels::can_fuse_bias(args)) << "its address";
  args.bias = nullptr;
  EXPECT_FALSE(kernels::can_fuse_bias(args)) << "none";
}

template <class T, class C>
void expect_start(std::int64_t m, std::int64_t n, bool accumulate, bool bias) {
  const std::int64_t ldc = n + 2;
  std::vector<T> row;
  for (const float x : values(n, 3)) row.push_back(T(x));
  std::vector<C> c;
  for (const float x : values(m * ldc, 4)) c.push_back(C(x));
  std::vector<C> wanted = c;
  MatmulArgs args = {.c = c.data(),
                     .bias = bias ? row.data() : nullptr,
                     .m = m,
                     .n = n,
                     .ldb = n,
                     .ldc = ldc,
                     .accumulate = accumulate,
                     .dtype = dtype_of<T>,
                     .c_dtype = dtype_of<C>};
  kernels::emu::matmul_start({}, args);
  args.c = wanted.data();
  kernels::reference::matmul({}, args);
  EXPECT_EQ(c, wanted) << m << " x " << n << " accumulate " << accumulate << " bias " << bias;
}

TEST(MatmulStart, EmulatedIsTheReferencesProductOfNoTerms) {
  for (const std::int64_t m : {1, 3})
    for (const std::int64_t n : {1, 31, 255, 256, 257})
      for (int options = 0; options < 4; ++options) {
        const bool accumulate = (options & 1) != 0, bias = (options & 2) != 0;
        expect_start<float, float>(m, n, accumulate, bias);
        expect_start<bf16, float>(m, n, accumulate, bias);
        expect_start<bf16, bf16>(m, n, accumulate, bias);
        expect_start<f16, float>(m, n, accumulate, bias);
        expect_start<f16, f16>(m, n, accumulate, bias);
      }
}

}  // namespace
}  // namespace lockstep::testing
