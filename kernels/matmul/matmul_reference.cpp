#include <vector>

#include "core/error.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::reference {
namespace {

template <class T, class C>
void run(const MatmulArgs& args) {
  const auto* a = static_cast<const T*>(args.a);
  const auto* b = static_cast<const T*>(args.b);
  const auto* bias = static_cast<const T*>(args.bias);
  auto* c = static_cast<C*>(args.c);
  std::vector<double> sum(static_cast<std::size_t>(args.n));
  for (std::int64_t i = 0; i < args.m; ++i) {
    sum.assign(sum.size(), 0.0);
    for (std::int64_t p = 0; p < args.k; ++p) {
      const auto left =
          static_cast<double>(static_cast<float>(args.transpose_a != 0 ? a[p * args.lda + i] : a[i * args.lda + p]));
      const T* right = args.transpose_b != 0 ? b + p : b + p * args.ldb;
      const std::int64_t stride = args.transpose_b != 0 ? args.ldb : 1;
      for (std::int64_t j = 0; j < args.n; ++j)
        sum[static_cast<std::size_t>(j)] += left * static_cast<double>(static_cast<float>(right[j * stride]));
    }
    for (std::int64_t j = 0; j < args.n; ++j) {
      double value = sum[static_cast<std::size_t>(j)];
      if (bias != nullptr) value += static_cast<double>(static_cast<float>(bias[j]));
      C& out = c[i * args.ldc + j];
      if (args.accumulate != 0) value += static_cast<double>(static_cast<float>(out));
      out = static_cast<C>(static_cast<float>(value));
    }
  }
}

}  // namespace

void matmul(const Exec&, const MatmulArgs& args) {
  const bool wide = args.c_dtype == DType::f32;
  if (args.dtype == DType::f32) return run<float, float>(args);
  if (args.dtype == DType::bf16) return wide ? run<bf16, float>(args) : run<bf16, bf16>(args);
  if (args.dtype == DType::f16) return wide ? run<f16, float>(args) : run<f16, f16>(args);
  fail(ErrorKind::internal, "matmul: no reference for {}", to_string(args.dtype));
}

}  // namespace lockstep::kernels::reference
