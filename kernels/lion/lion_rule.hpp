#pragma once

// Lion's rule for one element, once for every implementation. Static for the reason in kernels/adam/adam_rule.hpp.

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update. Derived in double, rounded once to T.
template <class T>
struct LionScalars {
  T grad_factor;
  T lr;
  T weight_decay;
  T beta1;
  T rest1;  ///< 1 - beta1
  T beta2;
  T rest2;  ///< 1 - beta2
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline LionScalars<float> lion_scalars(const GroupStep::Rounded& step,
                                                                                 float grad_factor) {
  return {grad_factor, step.lr, step.weight_decay, step.beta1, step.rest1, step.beta2, step.rest2};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline LionScalars<T> lion_scalars(const GroupStep& step,
                                                                             double grad_factor) {
  if constexpr (sizeof(T) == sizeof(float))
    return lion_scalars(step.rounded, static_cast<float>(grad_factor));
  else
    return {grad_factor, step.lr, step.weight_decay, step.beta1, 1.0 - step.beta1, step.beta2, 1.0 - step.beta2};
}

/// p and m <- their values after one update with gradient sum `g` (before grad_factor). The decay sees the old p. The
/// sign of zero is zero.
template <class T>
LOCKSTEP_HOST_DEVICE static inline void lion_element(T& p, T& m, T g, const LionScalars<T>& s) {
  g = s.grad_factor * g;
  const T c = s.beta1 * m + s.rest1 * g;
  const T sign = (c > 0 ? T(1) : T(0)) - (c < 0 ? T(1) : T(0));
  const T update = sign + s.weight_decay * p;
  p = p - s.lr * update;
  m = s.beta2 * m + s.rest2 * g;
}

}  // namespace lockstep
