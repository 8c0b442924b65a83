#pragma once

// Muon's rules for one element, once for every implementation. Static for the reason in kernels/adam/adam_rule.hpp.

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update.
template <class T>
struct MuonScalars {
  T grad_factor;
  T lr;
  T weight_decay;
  T momentum;
  T rest;  ///< 1 - momentum
  bool nesterov;
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline MuonScalars<float> muon_scalars(const GroupStep::Rounded& step,
                                                                                 float grad_factor, bool nesterov) {
  return {grad_factor, step.lr, step.weight_decay, step.momentum, 1.0F - step.momentum, nesterov};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline MuonScalars<T> muon_scalars(const GroupStep& step, double grad_factor,
                                                                             bool nesterov) {
  if constexpr (sizeof(T) == sizeof(float))
    return muon_scalars(step.rounded, static_cast<float>(grad_factor), nesterov);
  else
    return {grad_factor, step.lr, step.weight_decay, step.momentum, 1.0 - step.momentum, nesterov};
}

/// buf <- its value after one update with gradient sum `g` (before grad_factor); gives back what is orthogonalised.
template <class T>
LOCKSTEP_HOST_DEVICE static inline T muon_direction_element(T& buf, T g, const MuonScalars<T>& s) {
  g = s.grad_factor * g;
  buf = s.momentum * buf + s.rest * g;
  return s.nesterov ? s.momentum * buf + s.rest * g : buf;
}

/// Element of c A A + b A + a I: `square` of A A, `gram` of A.
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline T muon_polynomial_element(T square, T gram, bool on_diagonal, T a, T b,
                                                                           T c) {
  const T value = c * square + b * gram;
  return on_diagonal ? value + a : value;
}

/// p <- its value after the update with the orthogonal direction `o`, times `ratio` of the matrix's sides.
template <class T>
LOCKSTEP_HOST_DEVICE static inline void muon_apply_element(T& p, T o, T ratio, const MuonScalars<T>& s) {
  p = p - s.lr * (ratio * o + s.weight_decay * p);
}

/// The order of the sums of squares, of a tile's elements and of a matrix's tiles: value i is added to lane
/// i % muon_lanes in ascending order; then lane k takes lane k + half for half = muon_lanes / 2, ..., 1.
inline constexpr std::uint32_t muon_lanes = 256;

/// Adds the lanes as said above; the result is in lane 0.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double add_muon_lanes(double (&lane)[muon_lanes]) {
  for (std::uint32_t half = muon_lanes / 2; half > 0; half /= 2)
    for (std::uint32_t k = 0; k < half; ++k) lane[k] = lane[k] + lane[k + half];
  return lane[0];
}

/// What a matrix is divided by, of whose tiles these are the sums of squares.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float muon_norm(double sum, float eps) {
  const auto norm = static_cast<float>(std::sqrt(sum));
  return norm > eps ? norm : eps;
}

}  // namespace lockstep
