#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/threads.hpp"
#include "kernels/declare.hpp"
#include "kernels/element.hpp"
#include "kernels/relu_pool/relu_pool_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

constexpr std::int64_t most_channels = 256;  ///< that are taken together

/// body(image, first row, last row) for each row of windows; the last piece of an image may be one without windows.
template <class Body>
void for_window_rows(const Exec& exec, const PoolShape& s, bool with_rest, const Body& body) {
  const std::int64_t rows = with_rest ? (s.height + s.pool - 1) / s.pool : s.out_height();
  const int threads = threads_for(exec.threads, s.batch * s.height * s.width * s.channels);
  for_pieces(threads, s.batch * rows, [&](std::int64_t piece) { body(piece / rows, piece % rows); });
}

/// The maximum of channels [0, count) over the window whose first pixel is `pre`, and which of its pixels has it (-1:
/// none is above 0).
template <class T>
void best_of(const T* pre, const T* bias, const PoolShape& s, std::int64_t count, float* __restrict best,
             std::int32_t* __restrict at) {
  for (std::int64_t c = 0; c < count; ++c) {
    best[c] = 0.0F;
    at[c] = -1;
  }
  for (std::int64_t pixel = 0; pixel < s.pool * s.pool; ++pixel) {
    const T* const from = pre + (pixel / s.pool * s.width + pixel % s.pool) * s.channels;
#pragma omp simd
    for (std::int64_t c = 0; c < count; ++c) {
      const float value = static_cast<float>(from[c]) + static_cast<float>(bias[c]);
      const bool better = takes_over(value, best[c]);
      best[c] = better ? value : best[c];
      at[c] = better ? static_cast<std::int32_t>(pixel) : at[c];
    }
  }
}

template <class T>
void forward(const Exec& exec, const ReluPoolForwardArgs& args) {
  const PoolShape& s = args.shape;
  const T* const pre = static_cast<const T*>(args.pre);
  const T* const bias = static_cast<const T*>(args.bias);
  T* const y = static_cast<T*>(args.y);
  for_window_rows(exec, s, false, [&](std::int64_t image, std::int64_t i) {
    alignas(64) float best[most_channels];
    alignas(64) std::int32_t at[most_channels];
    for (std::int64_t j = 0; j < s.out_width(); ++j)
      for (std::int64_t c = 0; c < s.channels; c += most_channels) {
        const std::int64_t count = s.channels - c < most_channels ? s.channels - c : most_channels;
        best_of(pre + ((image * s.height + i * s.pool) * s.width + j * s.pool) * s.channels + c, bias + c, s, count,
                best, at);
        T* const to = y + ((image * s.out_height() + i) * s.out_width() + j) * s.channels + c;
        for (std::int64_t k = 0; k < count; ++k) to[k] = T(best[k]);
      }
  });
}

template <class T>
void backward(const Exec& exec, const ReluPoolBackwardArgs& args) {
  const PoolShape& s = args.shape;
  const T* const pre = static_cast<const T*>(args.pre);
  const T* const bias = static_cast<const T*>(args.bias);
  const T* const dy = static_cast<const T*>(args.dy);
  T* const dpre = static_cast<T*>(args.dpre);
  for_window_rows(exec, s, true, [&](std::int64_t image, std::int64_t i) {
    alignas(64) float best[most_channels];
    alignas(64) std::int32_t at[most_channels];
    const std::int64_t first = image * s.height + i * s.pool;  // row of all images
    const std::int64_t rows = s.height - i * s.pool < s.pool ? s.height - i * s.pool : s.pool;
    const std::int64_t covered = i < s.out_height() ? s.out_width() * s.pool : 0;  // columns that windows have
    for (std::int64_t row = first; row < first + rows; ++row)
      for (std::int64_t k = (row * s.width + covered) * s.channels; k < (row + 1) * s.width * s.channels; ++k)
        dpre[k] = T(0.0F);
    if (covered == 0) return;
    for (std::int64_t j = 0; j < s.out_width(); ++j)
      for (std::int64_t c = 0; c < s.channels; c += most_channels) {
        const std::int64_t count = s.channels - c < most_channels ? s.channels - c : most_channels;
        const std::int64_t begin = (first * s.width + j * s.pool) * s.channels + c;
        best_of(pre + begin, bias + c, s, count, best, at);
        const T* const from = dy + ((image * s.out_height() + i) * s.out_width() + j) * s.channels + c;
        for (std::int64_t pixel = 0; pixel < s.pool * s.pool; ++pixel) {
          T* const to = dpre + begin + (pixel / s.pool * s.width + pixel % s.pool) * s.channels;
          for (std::int64_t k = 0; k < count; ++k) to[k] = at[k] == pixel ? from[k] : T(0.0F);
        }
      }
  });
}

}  // namespace

void relu_pool_forward(const Exec& exec, const ReluPoolForwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { forward<T>(exec, args); });
}

void relu_pool_backward(const Exec& exec, const ReluPoolBackwardArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { backward<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
