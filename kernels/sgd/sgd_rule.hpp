#pragma once

// SGD's rule for one element, once for every implementation. Static for the reason in kernels/adam/adam_rule.hpp.

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update. Derived in double, rounded once to T.
template <class T>
struct SgdScalars {
  T grad_factor;
  T lr;
  T weight_decay;
  T momentum;
  T undamped;     ///< 1 - dampening
  bool first;     ///< the buffer has no history yet
  bool buffered;  ///< momentum is not zero
  bool nesterov;
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline SgdScalars<float> sgd_scalars(const GroupStep::Rounded& step,
                                                                               float grad_factor, float undamped,
                                                                               bool nesterov, bool first) {
  return {grad_factor, step.lr, step.weight_decay, step.momentum, undamped, first, step.momentum != 0, nesterov};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline SgdScalars<T> sgd_scalars(const GroupStep& step, double grad_factor,
                                                                           double dampening, bool nesterov,
                                                                           bool first) {
  if constexpr (sizeof(T) == sizeof(float))
    return sgd_scalars(step.rounded, static_cast<float>(grad_factor), static_cast<float>(1.0 - dampening), nesterov,
                       first);
  else
    return {grad_factor,     step.lr, step.weight_decay,  step.momentum,
            1.0 - dampening, first,   step.momentum != 0, nesterov};
}

/// p and buf <- their values after one update with gradient sum `g` (before grad_factor). Without momentum buf stays
/// as it is.
template <class T>
LOCKSTEP_HOST_DEVICE static inline void sgd_element(T& p, T& buf, T g, const SgdScalars<T>& s) {
  T d = s.grad_factor * g;
  d = d + s.weight_decay * p;
  if (s.buffered) {
    buf = s.first ? d : s.momentum * buf + s.undamped * d;
    d = s.nesterov ? d + s.momentum * buf : buf;
  }
  p = p - s.lr * d;
}

}  // namespace lockstep
