#pragma once

// Cases for kernels/cpu/vector_math.hpp, included by one file for each instruction set behind its `#pragma GCC target`.
// What runs behind the pragma uses plain loops and <cmath>; the checks are made by the test program's own code.

#include <bit>
#include <cmath>
#include <cstdint>

namespace lockstep::testing {

/// What the functions did over a sweep of all floats.
struct SweepResult {
  double exp_ulp = 0, exp2_ulp = 0, tanh_ulp = 0, sigmoid2_ulp = 0, reciprocal_ulp = 0;  ///< worst errors
  int lost_nan = 0;  ///< NaN arguments that gave a number
};
/// How often a vector conversion differed from core/dtype.hpp.
struct ConversionResult {
  int checked = 0, bf16_differs = 0, f16_differs = 0, tail_differs = 0;
};

}  // namespace lockstep::testing
