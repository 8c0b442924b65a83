#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"

namespace lockstep {

struct DropoutArgs {
  const void* x = nullptr;  ///< [rows, cols] of dtype
  void* y = nullptr;        ///< like x, and may be x
  std::int64_t rows = 0;    ///< samples
  std::int64_t cols = 0;    ///< elements a sample
  /// Position of row 0 in the training sequence, on the device: null is 0. Row r has the one r further.
  const std::int64_t* first_sample = nullptr;
  const StepState* state = nullptr;  ///< its attempted steps tell steps apart; null: 0
  std::uint64_t seed = 1;
  std::uint32_t operation = 0;  ///< which dropout of the model
  std::uint32_t threshold = 0;  ///< the probability in units of 2^-32
  float scale = 1.0F;           ///< 1 / (1 - probability), rounded
  DType dtype = DType::f32;
};

/// threshold and scale for `probability`, which is rounded to a multiple of 2^-32: then the expected value of y is x,
/// but for the rounding of the scale. Requires 0 <= probability < 1.
void set_probability(DropoutArgs& args, double probability);

namespace kernels {
/// y <- x * scale or, with the probability, 0 (Srivastava et al., "Dropout", JMLR 2014). Which elements go is a
/// function of seed, step, position of the sample, operation and element alone (docs/model.md), so nothing is stored:
/// the gradient is the same kernel on dy, and any number of ranks drops the same.
void dropout(const Exec& exec, const DropoutArgs& args);
}  // namespace kernels

}  // namespace lockstep
