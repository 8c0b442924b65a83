#pragma once

// Adam's rule for one element, once for every implementation. The functions are static so that each compilation of
// a hot file keeps its own copy (kernels/cpu/isa_namespace.hpp).

#include <cmath>

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update. Derived in double, rounded once to T (to
/// float by decide); the corrections as reciprocals, which leaves one division an element.
template <class T>
struct AdamScalars {
  T grad_factor;
  T lr;
  T weight_decay;
  T beta1;
  T rest1;  ///< 1 - beta1
  T beta2;
  T rest2;         ///< 1 - beta2
  T uncorrected1;  ///< 1 / c1
  T uncorrected2;  ///< 1 / c2
  T eps;
  bool decoupled;  ///< AdamW's decay, else decay added to the gradient
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline AdamScalars<float> adam_scalars(const GroupStep::Rounded& step,
                                                                                 float grad_factor, float eps,
                                                                                 bool decoupled) {
  return {grad_factor, step.lr,           step.weight_decay, step.beta1, step.rest1, step.beta2,
          step.rest2,  step.uncorrected1, step.uncorrected2, eps,        decoupled};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline AdamScalars<T> adam_scalars(const GroupStep& step, double grad_factor,
                                                                             double eps, bool decoupled) {
  if constexpr (sizeof(T) == sizeof(float))
    return adam_scalars(step.rounded, static_cast<float>(grad_factor), static_cast<float>(eps), decoupled);
  else
    return {grad_factor,
            step.lr,
            step.weight_decay,
            step.beta1,
            1.0 - step.beta1,
            step.beta2,
            1.0 - step.beta2,
            1.0 / step.correction1,
            1.0 / step.correction2,
            eps,
            decoupled};
}

/// p, m, v <- their values after one update with gradient sum `g` (before grad_factor). The decay sees the old p.
template <class T>
LOCKSTEP_HOST_DEVICE static inline void adam_element(T& p, T& m, T& v, T g, const AdamScalars<T>& s) {
  g = s.grad_factor * g;
  if (!s.decoupled) g = g + s.weight_decay * p;
  m = s.beta1 * m + s.rest1 * g;
  v = s.beta2 * v + s.rest2 * g * g;
  T update = (m * s.uncorrected1) / (std::sqrt(v * s.uncorrected2) + s.eps);
  if (s.decoupled) update = update + s.weight_decay * p;
  p = p - s.lr * update;
}

}  // namespace lockstep
