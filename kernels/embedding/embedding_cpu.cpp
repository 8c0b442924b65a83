#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

template <class T>
void forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  const std::int64_t positions = args.batch * args.length, cols = args.cols;
  const int threads = threads_for(exec.threads, positions * cols);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t p = 0; p < positions; ++p) {
    const T* token = static_cast<const T*>(args.wte) + args.tokens[p] * cols;
    T* y = static_cast<T*>(args.y) + p * cols;
    if (args.wpe == nullptr) {
      for (std::int64_t c = 0; c < cols; ++c) y[c] = token[c];
      continue;
    }
    const T* position = static_cast<const T*>(args.wpe) + p % args.length * cols;
    for_lanes(
        cols, [=](std::int64_t c, auto n)
                  __attribute__((always_inline)) { store(y + c, load(token + c, n) + load(position + c, n), n); });
  }
}

/// Columns [begin, begin + width) of all rows.
void clear_columns(float* to, std::int64_t rows, std::int64_t cols, std::int64_t begin, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < width; ++c) to[r * cols + begin + c] = 0.0F;
}

/// Each thread owns a range of columns and walks all positions in order, so every sum is in ascending position on any
/// number of threads, and dy is read once for both gradients. What is replaced starts from zeros, because most rows
/// of a vocabulary are met more than once or never.
template <class T>
void backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  constexpr std::int64_t grain = 16;  // columns: one cache line of a gradient row
  const std::int64_t positions = args.batch * args.length, cols = args.cols;
  const std::int64_t grains = (cols + grain - 1) / grain;
  const int wanted = threads_for(exec.threads, positions * cols);
  const int threads = wanted < grains ? wanted : static_cast<int>(grains);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int part = 0; part < threads; ++part) {
    const std::int64_t begin = grains * part / threads * grain;
    const std::int64_t end = grains * (part + 1) / threads * grain;
    const std::int64_t width = (end < cols ? end : cols) - begin;
    if (args.accumulate_dwte == 0) clear_columns(args.dwte, args.wte_rows, cols, begin, width);
    if (args.dwpe != nullptr && args.accumulate_dwpe == 0) clear_columns(args.dwpe, args.wpe_rows, cols, begin, width);
    for (std::int64_t p = 0; p < positions; ++p) {
      const T* dy = static_cast<const T*>(args.dy) + p * cols + begin;
      float* dwte = args.dwte + args.tokens[p] * cols + begin;
      float* dwpe = args.dwpe != nullptr ? args.dwpe + p % args.length * cols + begin : nullptr;
      for_lanes(
          width, [=](std::int64_t c, auto n) __attribute__((always_inline)) {
            const Floats d = load(dy + c, n);
            store(dwte + c, load(dwte + c, n) + d, n);
            if (dwpe != nullptr) store(dwpe + c, load(dwpe + c, n) + d, n);
          });
    }
  }
}

}  // namespace

void embedding_forward(const Exec& exec, const EmbeddingForwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { forward<T>(exec, args); });
}
std::size_t embedding_backward_scratch(const EmbeddingBackwardArgs& /*args*/) noexcept { return 0; }
void embedding_backward(const Exec& exec, const EmbeddingBackwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { backward<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
