#include <cmath>

#include "kernels/cpu/isa_namespace.hpp"
#include "kernels/cpu/vector_math.hpp"
#include "kernels/declare.hpp"

namespace lockstep::kernels::LOCKSTEP_ISA_NS {
namespace {

constexpr std::int64_t cached_classes = 4096;  // up to here the exponentials of a row are kept; beyond, taken again

/// The loss of one row; writes its gradient if `factor` is given.
template <class T>
float row_loss(T* logits, std::int32_t target, std::int64_t classes, std::int64_t stride, const float* factor) {
  if (target < 0) {
    if (factor != nullptr)
      for (std::int64_t c = 0; c < stride; ++c) logits[c] = T(0.0F);
    return 0.0F;
  }
  alignas(64) float exponentials[cached_classes];
  const bool cached = classes <= cached_classes;
  Floats largest_lanes = splat(-__builtin_inff());
  for_lanes(
      classes, [&](std::int64_t c, auto n) __attribute__((always_inline)) {
        largest_lanes = larger(keep(load(logits + c, n), n, -__builtin_inff()), largest_lanes);
      });
  // An infinite maximum gives inf - inf = NaN below, a NaN logit gives NaN: both reach the loss and every gradient.
  const float largest = max_lanes(largest_lanes);
  const float sum = sum_over(
      classes, [&](std::int64_t c, auto n) __attribute__((always_inline)) {
        const Floats e = keep(exp(load(logits + c, n) - largest), n, 0.0F);
        if (cached) store(exponentials + c, e, n);
        return e;
      });
  const float shifted = static_cast<float>(logits[target]) - largest;
  const float loss = static_cast<float>(std::log(static_cast<double>(sum)) - static_cast<double>(shifted));
  if (factor == nullptr) return loss;
  const float scale = *factor / sum;
  // Softmax minus one, where it counts most, without going through the stored type.
  const float target_gradient = (exp(splat(shifted))[0] / sum - 1.0F) * *factor;
  if (cached)
    for_lanes(
        classes, [&](std::int64_t c, auto n)
                     __attribute__((always_inline)) { store(logits + c, load(exponentials + c, n) * scale, n); });
  else
    for_lanes(
        classes, [&](std::int64_t c, auto n) __attribute__((always_inline)) {
          store(logits + c, exp(load(logits + c, n) - largest) * scale, n);
        });
  logits[target] = T(target_gradient);
  for (std::int64_t c = classes; c < stride; ++c) logits[c] = T(0.0F);
  return loss;
}

template <class T>
void all_rows(const Exec& exec, const CrossEntropyArgs& args) {
  const auto factor = static_cast<float>(loss_factor(args));
  const int threads = threads_for(exec.threads, args.rows * args.classes);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (std::int64_t r = 0; r < args.rows; ++r)
    args.losses[r] = row_loss(static_cast<T*>(args.logits) + r * args.stride, args.targets[r], args.classes,
                              args.stride, args.want_grad != 0 ? &factor : nullptr);
  for (std::int64_t block = 0; block < args.rows; block += loss_rows_per_block) {
    double loss = 0, weight = 0;
    for (std::int64_t r = block; r < args.rows && r < block + loss_rows_per_block; ++r) {
      loss += static_cast<double>(args.losses[r]);
      weight += args.targets[r] >= 0 ? 1.0 : 0.0;
    }
    args.sum->loss += loss;
    args.sum->weight += weight;
  }
}

}  // namespace

void cross_entropy(const Exec& exec, const CrossEntropyArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) { all_rows<T>(exec, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_ISA_NS
