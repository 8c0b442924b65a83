#pragma once

#include "core/host_device.hpp"
#include "kernels/exec.hpp"

namespace lockstep {

struct AccuracyArgs {
  const void* logits = nullptr;           ///< [rows, stride] of dtype
  const std::int32_t* targets = nullptr;  ///< [rows]; -1: not counted
  std::int64_t* correct = nullptr;        ///< added to
  std::int64_t rows = 0;
  std::int64_t classes = 0;  ///< real ones; columns beyond are padding
  std::int64_t stride = 0;   ///< elements between rows, >= classes
  DType dtype = DType::f32;
};

/// Whether the target's logit is the first of the largest ones. Not so if any of the row is NaN.
template <class T>
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline bool is_correct(const T* logits, std::int64_t classes,
                                                                 std::int32_t target) {
  if (target < 0 || target >= classes) return false;
  const auto own = static_cast<float>(logits[target]);
  for (std::int64_t c = 0; c < target; ++c)
    if (!(own > static_cast<float>(logits[c]))) return false;
  for (std::int64_t c = target; c < classes; ++c)
    if (!(own >= static_cast<float>(logits[c]))) return false;
  return true;
}

namespace kernels {
/// *correct += the number of rows whose target has the largest logit (the first of equal ones).
void accuracy(const Exec& exec, const AccuracyArgs& args);
}  // namespace kernels

}  // namespace lockstep
