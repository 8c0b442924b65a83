#pragma once

#include "kernels/squared_error/squared_error.hpp"

namespace lockstep {

/// What a difference is multiplied with to give the gradient.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline float squared_error_factor(const SquaredErrorArgs& args) {
  if (args.want_grad == 0) return 0.0F;
  const double factor = *args.grad_factor * (args.state != nullptr ? args.state->scale : 1.0);
  return static_cast<float>(2.0 * factor / static_cast<double>(args.cols));
}

/// The loss of one row, whose predictions become their gradient. Squares are added in double, so that the order of
/// operations is all that defines the result.
template <class T>
LOCKSTEP_HOST_DEVICE static inline float squared_error_row(const SquaredErrorArgs& args, std::int64_t row,
                                                           float factor) {
  T* const p = static_cast<T*>(args.predictions) + row * args.cols;
  const float* const v = args.values + row * args.cols;
  const bool counted = args.targets[row] >= 0;
  double sum = 0;
  for (std::int64_t c = 0; c < args.cols; ++c) {
    const float difference = static_cast<float>(p[c]) - v[c];
    if (counted) sum += static_cast<double>(difference) * static_cast<double>(difference);
    if (args.want_grad != 0) p[c] = T(counted ? difference * factor : 0.0F);
  }
  return static_cast<float>(sum / static_cast<double>(args.cols));
}

}  // namespace lockstep
