#include "kernels/cpu/column_sum.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

// 0.5 (1 + tanh u) = sigmoid(2 u) = 1 / (1 + 2^(-2 u log2(e))): one exponential, and no cancellation for negative x.
constexpr float linear = 2.30220819813F;   // 2 sqrt(2 / pi) log2(e)
constexpr float cubic = 0.102943239579F;   // 0.044715 of it
constexpr float slope = 1.59576912161F;    // 2 sqrt(2 / pi)
constexpr float slope3 = 0.214064448864F;  // 3 times 0.044715 of it
constexpr float bound = 9.9F;              // sigmoid(2 u) is 1 to the last bit above it and below 2^-122 under -9.9

/// sigmoid(2 u) of x within the bound.
LOCKSTEP_INLINE Floats sigmoid_of_twice_u(Floats x, Floats square) {
  return reciprocal(1.0F + exp2_within(x * multiply_add(square, splat(-cubic), splat(-linear))));
}

LOCKSTEP_INLINE Floats gelu(Floats x) {
  const Floats above = larger(splat(-bound), x);  // in this order of operands NaN stays
  const Floats within = smaller(splat(bound), above);
  return above * sigmoid_of_twice_u(within, within * within);
}

LOCKSTEP_INLINE Floats gelu_derivative(Floats x) {
  x = smaller(splat(bound), larger(splat(-bound), x));
  const Floats square = x * x;
  const Floats s = sigmoid_of_twice_u(x, square);
  const Floats inner = multiply_add(square, splat(slope3), splat(slope));
  return multiply_add(x * s * inner, 1.0F - s, s);
}

constexpr std::int64_t chunk = 4096;  // elements of a loop turn where rows do not matter

template <class T>
void forward(const Exec& exec, const GeluForwardArgs& args) {
  const std::int64_t elements = args.rows * args.cols;
  // Without a bias the shape does not matter.
  const std::int64_t width = args.bias != nullptr ? args.cols : chunk;
  const std::int64_t turns = (elements + width - 1) / width;
  const auto* bias = static_cast<const T*>(args.bias);
  const int threads = threads_for(exec.threads, elements);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t turn = 0; turn < turns; ++turn) {
    const std::int64_t begin = turn * width;
    const std::int64_t count = elements - begin < width ? elements - begin : width;
    const T* x = static_cast<const T*>(args.x) + begin;
    T* y = static_cast<T*>(args.y) + begin;
    if (bias == nullptr) {
      for_lanes(
          count, [=](std::int64_t i, auto n) __attribute__((always_inline)) { store(y + i, gelu(load(x + i, n)), n); });
      continue;
    }
    T* pre = static_cast<T*>(args.pre) + begin;
    for_lanes(
        count, [=](std::int64_t i, auto n) __attribute__((always_inline)) {
          store(pre + i, load(x + i, n) + load(bias + i, n), n);
          store(y + i, gelu(load(pre + i, n)), n);  // of the rounded sum: what backward will see
        });
  }
}

template <class T>
void backward(const Exec& exec, const GeluBackwardArgs& args) {
  const std::int64_t cols = args.cols;
  const std::int64_t blocks = column_sum_blocks(args.rows);
  auto* partial = static_cast<float*>(args.scratch);
  const int threads = threads_for(exec.threads, args.rows * cols);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t first = block * column_sum_rows;
    const std::int64_t last = args.rows - first < column_sum_rows ? args.rows : first + column_sum_rows;
    float* sum = args.dbias != nullptr ? partial + block * cols : nullptr;
    for (std::int64_t r = first; r < last; ++r) {
      const T* dy = static_cast<const T*>(args.dy) + r * cols;
      const T* pre = static_cast<const T*>(args.pre) + r * cols;
      T* dx = static_cast<T*>(args.dx) + r * cols;
      const bool start = r == first;
      for_lanes(
          cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
            store(dx + c, load(dy + c, n) * gelu_derivative(load(pre + c, n)), n);
            if (sum == nullptr) return;
            const Floats stored = load(dx + c, n);
            store(sum + c, start ? stored : load(sum + c, n) + stored, n);
          });
    }
  }
  if (args.dbias != nullptr) sum_blocks(threads, partial, blocks, cols, args.dbias, cols, args.accumulate != 0);
}

}  // namespace

void gelu_forward(const Exec& exec, const GeluForwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { forward<T>(exec, args); });
}
std::size_t gelu_backward_scratch(const GeluBackwardArgs& args) noexcept {
  return column_sum_scratch(args.rows, args.cols);
}
void gelu_backward(const Exec& exec, const GeluBackwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { backward<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
