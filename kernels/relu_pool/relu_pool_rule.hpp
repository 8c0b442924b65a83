#pragma once

#include "core/host_device.hpp"

namespace lockstep {

/// Whether `value` takes the place of `best`, which begins at 0: the first of equal ones stays, and NaN comes through.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline bool takes_over(float value, float best) {
  return value > best || (value != value && best == best);
}

}  // namespace lockstep
