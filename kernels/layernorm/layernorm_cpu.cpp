#include <cmath>

#include "kernels/cpu/column_sum.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

constexpr std::int64_t rows_per_block =
    16;  // whose share of dgamma and dbeta is summed first; fixed, whatever the threads
constexpr std::int64_t row_blocks(std::int64_t rows) { return (rows + rows_per_block - 1) / rows_per_block; }

template <class T>
void forward(const Exec& exec, const LayernormForwardArgs& args) {
  const auto* gamma = static_cast<const T*>(args.gamma);
  const auto* beta = static_cast<const T*>(args.beta);
  const std::int64_t cols = args.cols;
  const auto width = static_cast<float>(cols);
  const int threads = threads_for(exec.threads, args.rows * cols);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t r = 0; r < args.rows; ++r) {
    // A row stays in the first-level cache through the three passes.
    const T* s = static_cast<const T*>(args.x) + r * cols;
    T* y = static_cast<T*>(args.y) + r * cols;
    float total;
    if (args.residual != nullptr) {
      const T* x = s;
      const T* residual = static_cast<const T*>(args.residual) + r * cols;
      T* sum = static_cast<T*>(args.sum) + r * cols;
      total = sum_over(
          cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
            store(sum + c, load(x + c, n) + load(residual + c, n), n);
            return load(sum + c, n);  // as rounded: what backward will see
          });
      s = sum;
    } else {
      total = sum_over(
          cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) { return load(s + c, n); });
    }
    const float mean = total / width;
    const float squares = sum_over(
        cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
          const Floats d = keep(load(s + c, n) - mean, n, 0.0F);
          return d * d;
        });
    const float rstd = 1.0F / std::sqrt(squares / width + args.eps);
    for_lanes(
        cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
          const Floats normalised = (load(s + c, n) - mean) * rstd;
          store(y + c, multiply_add(normalised, load(gamma + c, n), load(beta + c, n)), n);
        });
    args.mean[r] = mean;
    args.rstd[r] = rstd;
  }
}

template <class T>
void backward(const Exec& exec, const LayernormBackwardArgs& args) {
  const auto* gamma = static_cast<const T*>(args.gamma);
  const std::int64_t cols = args.cols;
  const auto width = static_cast<float>(cols);
  const std::int64_t blocks = row_blocks(args.rows);
  auto* partial = static_cast<float*>(args.scratch);  // [blocks][dgamma, dbeta][cols]
  const int threads = threads_for(exec.threads, args.rows * cols);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t block = 0; block < blocks; ++block) {
    float* dgamma = partial + block * 2 * cols;
    float* dbeta = dgamma + cols;
    const std::int64_t first = block * rows_per_block;
    const std::int64_t last = first + rows_per_block < args.rows ? first + rows_per_block : args.rows;
    for (std::int64_t c = 0; c < 2 * cols; ++c) dgamma[c] = 0.0F;
    for (std::int64_t r = first; r < last; ++r) {
      const T* dy = static_cast<const T*>(args.dy) + r * cols;
      const T* x = static_cast<const T*>(args.x) + r * cols;
      const T* dsum = args.dsum != nullptr ? static_cast<const T*>(args.dsum) + r * cols : nullptr;
      T* dx = static_cast<T*>(args.dx) + r * cols;
      const float mean = args.mean[r], rstd = args.rstd[r];
      Floats g_lanes{}, gx_lanes{};
      for_lanes(
          cols, [&](std::int64_t c, auto n) __attribute__((always_inline)) {
            const Floats d = load(dy + c, n);
            const Floats dx_part = d * ((load(x + c, n) - mean) * rstd);
            store(dgamma + c, load(dgamma + c, n) + dx_part, n);
            store(dbeta + c, load(dbeta + c, n) + d, n);
            const Floats scale = load(gamma + c, n);  // 0 in lanes beyond the row, as d is
            g_lanes += d * scale;
            gx_lanes += dx_part * scale;
          });
      const float mean_g = sum_lanes(g_lanes) / width, mean_gx = sum_lanes(gx_lanes) / width;
      for_lanes(
          cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
            const Floats normalised = (load(x + c, n) - mean) * rstd;
            const Floats g = load(dy + c, n) * load(gamma + c, n);
            Floats result = (g - mean_g - normalised * mean_gx) * rstd;
            if (dsum != nullptr) result += load(dsum + c, n);
            store(dx + c, result, n);
          });
    }
  }
  sum_blocks(threads, partial, blocks, 2 * cols, args.dgamma, cols, args.accumulate_dgamma != 0);
  sum_blocks(threads, partial + cols, blocks, 2 * cols, args.dbeta, cols, args.accumulate_dbeta != 0);
}

}  // namespace

void layernorm_forward(const Exec& exec, const LayernormForwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { forward<T>(exec, args); });
}
std::size_t layernorm_backward_scratch(const LayernormBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(row_blocks(args.rows) * 2 * args.cols) * sizeof(float);
}
void layernorm_backward(const Exec& exec, const LayernormBackwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { backward<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
