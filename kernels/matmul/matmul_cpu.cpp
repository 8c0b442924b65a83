#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/matmul/matmul_amx.hpp"
#include "kernels/matmul/matmul_onednn.hpp"
#include "kernels/matmul/widened_blocks.hpp"

// The products themselves are oneDNN's, but for gradients of weights in AMX tiles (matmul_amx_cpu.cpp). Compiled per
// instruction set are the passes around them: widening 16-bit operands where the library has no fast 16-bit product,
// bias, and rounding to a 16-bit result.
namespace lockstep::kernels::LOCKSTEP_ISA_NS {

void matmul(const Exec& exec, const MatmulArgs& args);

namespace {

constexpr std::int64_t block_rows = widened_block_rows;
constexpr std::int64_t block_columns = widened_block_columns;
constexpr std::int64_t block_depth = widened_block_depth;

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

bool worth_threads(std::int64_t rows, std::int64_t columns) { return rows > 1 && rows * columns >= 32768; }

void product(const Exec& exec, const Sgemm& args) {
  if (exec.invariant)
    onednn_sgemm_in_pieces(args, exec.threads);
  else
    onednn_sgemm(args, exec.threads);
}

/// to [rows, columns] dense <- from [rows, columns] with leading dimension `leading`.
template <class T>
void widen_block(const Exec& exec, const T* from, std::int64_t leading, std::int64_t rows, std::int64_t columns,
                 float* to) {
#pragma omp parallel for num_threads(exec.threads) if (exec.threads > 1 && worth_threads(rows, columns))
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* source = from + i * leading;
    float* target = to + i * columns;
    for_lanes(columns, [&](std::int64_t j, auto count) { store(target + j, load(source + j, count), count); });
  }
}

/// c (+)= sum + bias for one block; sum is dense.
template <class T, class C>
void finish(const Exec& exec, const float* sum, const T* bias, bool accumulate, std::int64_t rows, std::int64_t columns,
            C* c, std::int64_t ldc) {
#pragma omp parallel for num_threads(exec.threads) if (exec.threads > 1 && worth_threads(rows, columns))
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* from = sum + i * columns;
    C* to = c + i * ldc;
    for_lanes(columns, [&](std::int64_t j, auto count) {
      Floats value = load(from + j, count);
      if (bias != nullptr) value += load(bias + j, count);
      if (accumulate) value += load(to + j, count);
      store(to + j, value, count);
    });
  }
}

template <class T, class C>
void widened(const Exec& exec, const MatmulArgs& args) {
  const auto* a = static_cast<const T*>(args.a);
  const auto* b = static_cast<const T*>(args.b);
  const auto* bias = static_cast<const T*>(args.bias);
  auto* c = static_cast<C*>(args.c);
  const bool ta = args.transpose_a != 0, tb = args.transpose_b != 0;
  const std::int64_t most_m = smaller(args.m, block_rows), most_n = smaller(args.n, block_columns);
  const std::int64_t most_k = smaller(args.k, block_depth);
  float* wide_a = matmul_scratch(widened_scratch(args.m, args.n, args.k));
  float* wide_b = wide_a + most_m * most_k;
  float* sum = wide_b + most_k * most_n;

  for (std::int64_t i = 0; i < args.m; i += block_rows)
    for (std::int64_t j = 0; j < args.n; j += block_columns) {
      const std::int64_t m = smaller(block_rows, args.m - i), n = smaller(block_columns, args.n - j);
      for (std::int64_t p = 0; p < args.k; p += block_depth) {
        const std::int64_t k = smaller(block_depth, args.k - p);
        if (ta)
          widen_block(exec, a + p * args.lda + i, args.lda, k, m, wide_a);
        else
          widen_block(exec, a + i * args.lda + p, args.lda, m, k, wide_a);
        if (tb)
          widen_block(exec, b + j * args.ldb + p, args.ldb, n, k, wide_b);
        else
          widen_block(exec, b + p * args.ldb + j, args.ldb, k, n, wide_b);
        product(exec, {.a = wide_a,
                       .b = wide_b,
                       .c = sum,
                       .m = m,
                       .n = n,
                       .k = k,
                       .lda = ta ? m : k,
                       .ldb = tb ? k : n,
                       .ldc = n,
                       .transpose_a = ta,
                       .transpose_b = tb,
                       .beta = p == 0 ? 0.0F : 1.0F});
      }
      finish(exec, sum, bias == nullptr ? nullptr : bias + j, args.accumulate != 0, m, n, c + i * args.ldc + j,
             args.ldc);
    }
}

/// An empty sum: c (+)= bias.
template <class T, class C>
void only_bias(const MatmulArgs& args) {
  const auto* bias = static_cast<const T*>(args.bias);
  auto* c = static_cast<C*>(args.c);
  for (std::int64_t i = 0; i < args.m; ++i)
    for (std::int64_t j = 0; j < args.n; ++j) {
      float value = bias != nullptr ? static_cast<float>(bias[j]) : 0.0F;
      C& out = c[i * args.ldc + j];
      if (args.accumulate != 0) value += static_cast<float>(out);
      out = static_cast<C>(value);
    }
}

void single(const Exec& exec, const MatmulArgs& args) {
  auto* c = static_cast<float*>(args.c);
  product(exec, {.a = static_cast<const float*>(args.a),
                 .b = static_cast<const float*>(args.b),
                 .c = c,
                 .m = args.m,
                 .n = args.n,
                 .k = args.k,
                 .lda = args.lda,
                 .ldb = args.ldb,
                 .ldc = args.ldc,
                 .transpose_a = args.transpose_a != 0,
                 .transpose_b = args.transpose_b != 0,
                 .beta = args.accumulate != 0 ? 1.0F : 0.0F});
  const auto* bias = static_cast<const float*>(args.bias);
  if (bias == nullptr) return;
#pragma omp parallel for num_threads(exec.threads) if (exec.threads > 1 && worth_threads(args.m, args.n))
  for (std::int64_t i = 0; i < args.m; ++i) {
    float* row = c + i * args.ldc;
    for_lanes(args.n,
              [&](std::int64_t j, auto count) { store(row + j, load(row + j, count) + load(bias + j, count), count); });
  }
}

template <class T>
void sixteen_bit(const Exec& exec, const MatmulArgs& args) {
  if (args.c_dtype == DType::f32) return args.k == 0 ? only_bias<T, float>(args) : widened<T, float>(exec, args);
  return args.k == 0 ? only_bias<T, T>(args) : widened<T, T>(exec, args);
}

}  // namespace

void matmul(const Exec& exec, const MatmulArgs& args) {
  if (args.m == 0 || args.n == 0) return;
  if (args.dtype == DType::f32) return args.k == 0 ? only_bias<float, float>(args) : single(exec, args);
  if (args.dtype == DType::f16) return sixteen_bit<f16>(exec, args);
#if defined(__AVX512F__)
  // Only this instruction set has products of bf16 itself; the others widen, and so does a CPU where that is faster.
  // Its division of a product is the library's own, so invariant products are widened too.
  if (args.k > 0 && !exec.invariant && (amx_weight_gradient(exec, args) || onednn_matmul_bf16(exec, args))) return;
#endif
  sixteen_bit<bf16>(exec, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
