#pragma once

#include <cstdint>
#include <string>

#include "nn/model.hpp"

namespace lockstep::nn {

struct GradientCheckOptions {
  std::int64_t elements = 16;  ///< of each parameter that are tried, spread over it; all of a smaller one
  double step = 0.04;          ///< h of the coarser difference; parameters of order 1 are taken for granted
  std::uint64_t seed = 1;      ///< of the parameters, which are drawn as for training
};

/// The element at which the two gradients are furthest apart.
struct GradientCheck {
  double worst = 0;  ///< |backward - numeric| / (largest |backward| of the same parameter + 1e-3)
  std::string parameter;
  std::int64_t element = 0;
  double backward = 0;        ///< what the operations' backward halves say
  double numeric = 0;         ///< what differences of the loss say
  std::int64_t elements = 0;  ///< tried in all
};

/// Holds the gradient of a model's mean loss over `batch` against central differences of it, for operations of one's
/// own.
///
/// Two differences, h and h/2, are extrapolated (Richardson), so that the rule's error is O(h^4) while h is large
/// enough for fp32's rounding: right operations come to about 1e-3, wrong ones to about 1. In fp32, in host memory,
/// with the plain kernels that accumulate in double; `batch` has all pointers but grad_factor, which is not read. The
/// loss must be smooth within h: a rectifier's corner near a value is a false alarm, another seed moves it.
[[nodiscard]] GradientCheck check_gradients(Model& model, const Batch& batch, const GradientCheckOptions& options = {});

}  // namespace lockstep::nn
