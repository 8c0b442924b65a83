#include "kernels/cpu/column_sum.hpp"
#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

template <class T>
void column_sums(const Exec& exec, const BiasGradArgs& args) {
  const std::int64_t cols = args.cols;
  const std::int64_t blocks = column_sum_blocks(args.rows);
  auto* partial = static_cast<float*>(args.scratch);
  const int threads = threads_for(exec.threads, args.rows * cols);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t block = 0; block < blocks; ++block) {
    float* sum = partial + block * cols;
    const std::int64_t first = block * column_sum_rows;
    const std::int64_t count = args.rows - first < column_sum_rows ? args.rows - first : column_sum_rows;
    const T* dy = static_cast<const T*>(args.dy) + first * cols;
    for_lanes(
        cols, [=](std::int64_t c, auto n) __attribute__((always_inline)) { store(sum + c, load(dy + c, n), n); });
    for (std::int64_t r = 1; r < count; ++r) {
      const T* row = dy + r * cols;
      for_lanes(
          cols, [=](std::int64_t c, auto n)
                    __attribute__((always_inline)) { store(sum + c, load(sum + c, n) + load(row + c, n), n); });
    }
  }
  sum_blocks(threads, partial, blocks, cols, args.dbias, cols, args.accumulate != 0);
}

}  // namespace

std::size_t bias_grad_scratch(const BiasGradArgs& args) noexcept { return column_sum_scratch(args.rows, args.cols); }
void bias_grad(const Exec& exec, const BiasGradArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { column_sums<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
