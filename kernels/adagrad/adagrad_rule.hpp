#pragma once

// Adagrad's rule for one element, once for every implementation. Static for the reason in kernels/adam/adam_rule.hpp.

#include <cmath>

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update. Derived in double, rounded once to T.
template <class T>
struct AdagradScalars {
  T grad_factor;
  T lr;
  T weight_decay;
  T eps;
  T initial;   ///< what the sum begins with
  bool first;  ///< the sum has no history yet
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline AdagradScalars<float> adagrad_scalars(const GroupStep::Rounded& step,
                                                                                       float grad_factor, float eps,
                                                                                       float initial, bool first) {
  return {grad_factor, step.lr, step.weight_decay, eps, initial, first};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline AdagradScalars<T> adagrad_scalars(const GroupStep& step,
                                                                                   double grad_factor, double eps,
                                                                                   double initial, bool first) {
  if constexpr (sizeof(T) == sizeof(float))
    return adagrad_scalars(step.rounded, static_cast<float>(grad_factor), static_cast<float>(eps),
                           static_cast<float>(initial), first);
  else
    return {grad_factor, step.lr, step.weight_decay, eps, initial, first};
}

/// p and sum <- their values after one update with gradient sum `g` (before grad_factor).
template <class T>
LOCKSTEP_HOST_DEVICE static inline void adagrad_element(T& p, T& sum, T g, const AdagradScalars<T>& s) {
  g = s.grad_factor * g;
  g = g + s.weight_decay * p;
  sum = (s.first ? s.initial : sum) + g * g;
  p = p - s.lr * (g / (std::sqrt(sum) + s.eps));
}

}  // namespace lockstep
