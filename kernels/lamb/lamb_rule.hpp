#pragma once

// LAMB's rule: once for every implementation. Static for the reason in kernels/adam/adam_rule.hpp.

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep {

/// What is the same for every element of a parameter group in one update. Derived in double, rounded once to T.
template <class T>
struct LambScalars {
  T grad_factor;
  T weight_decay;
  T beta1;
  T rest1;  ///< 1 - beta1
  T beta2;
  T rest2;  ///< 1 - beta2
  T eps;
};

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline LambScalars<float> lamb_scalars(const GroupStep::Rounded& step,
                                                                                 float grad_factor, float eps) {
  return {grad_factor, step.weight_decay, step.beta1, step.rest1, step.beta2, step.rest2, eps};
}
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline LambScalars<T> lamb_scalars(const GroupStep& step, double grad_factor,
                                                                             double eps) {
  if constexpr (sizeof(T) == sizeof(float))
    return lamb_scalars(step.rounded, static_cast<float>(grad_factor), static_cast<float>(eps));
  else
    return {grad_factor, step.weight_decay, step.beta1, 1.0 - step.beta1, step.beta2, 1.0 - step.beta2, eps};
}

/// The direction of one element's step: what its norm is compared with.
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline T lamb_direction(T p, T m, T v, const LambScalars<T>& s) {
  return m / (std::sqrt(v) + s.eps) + s.weight_decay * p;
}

/// m, v <- their values after one update with gradient sum `g` (before grad_factor); gives back the direction.
template <class T>
LOCKSTEP_HOST_DEVICE static inline T lamb_moments(T p, T& m, T& v, T g, const LambScalars<T>& s) {
  g = s.grad_factor * g;
  m = s.beta1 * m + s.rest1 * g;
  v = s.beta2 * v + s.rest2 * g * g;
  return lamb_direction(p, m, v, s);
}

/// What a tensor's directions are multiplied by, of whose elements `p2` and whose directions `u2` is the sum of
/// squares.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double lamb_step(double p2, double u2, const GroupStep& step,
                                                                  double min_coeff, double max_coeff) {
  double trust = 1;
  if (p2 > 0 && u2 > 0) {
    trust = std::sqrt(p2) / std::sqrt(u2);
    if (trust > max_coeff) trust = max_coeff;
    if (trust < min_coeff) trust = min_coeff;
  }
  return step.lr * std::sqrt(step.correction2) / step.correction1 * trust;
}

/// p <- its value after the update.
template <class T>
LOCKSTEP_HOST_DEVICE static inline void lamb_apply(T& p, T m, T v, T step, const LambScalars<T>& s) {
  p = p - step * lamb_direction(p, m, v, s);
}

/// The order of both sums, of a tile's elements and of a tensor's tiles: value i is added to lane i % lamb_lanes in
/// ascending order; then lane k takes lane k + half for half = lamb_lanes / 2, ..., 1.
inline constexpr std::uint32_t lamb_lanes = 256;

/// Of a tile: of its elements, and of its directions.
struct LambSquares {
  double p2 = 0;
  double u2 = 0;
};

/// Adds the lanes as said above; the result is in lane 0.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline double add_lanes(double (&lane)[lamb_lanes]) {
  for (std::uint32_t half = lamb_lanes / 2; half > 0; half /= 2)
    for (std::uint32_t k = 0; k < half; ++k) lane[k] = lane[k] + lane[k + half];
  return lane[0];
}

/// The sums of the tiles [0, count) from `tiles`, in one thread.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline LambSquares add_tiles(const LambSquares* tiles, std::uint32_t count) {
  double p2[lamb_lanes] = {}, u2[lamb_lanes] = {};
  for (std::uint32_t j = 0; j < count; ++j) {
    p2[j % lamb_lanes] = p2[j % lamb_lanes] + tiles[j].p2;
    u2[j % lamb_lanes] = u2[j % lamb_lanes] + tiles[j].u2;
  }
  return {add_lanes(p2), add_lanes(u2)};
}

}  // namespace lockstep
