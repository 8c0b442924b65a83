#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lockstep::run {

/// A learning-rate range test: the loss of each step while the rate grew by the same factor from step to step.
/// Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
struct LrSweep {
  std::vector<double> lr;    ///< rising, each the same multiple of the one before; at least two
  std::vector<double> loss;  ///< of the mini-batch that was used with it; finite
};

/// A rule for reading a sweep, with the rate that it names.
struct LrRule {
  std::string name;
  std::string doc;
  double lr = 0;
};

/// What a sweep says.
struct LrAdvice {
  std::vector<double> smooth;  ///< the loss without its noise, by step
  std::vector<LrRule> rules;   ///< steepest, half-way, minimum / 10, valley; empty if the loss fell nowhere
  double lr = 0;               ///< the suggestion: between steepest and half-way, the geometric mean
  double low = 0, high = 0;    ///< the band of all rules
  bool agree = false;          ///< steepest and half-way are within a factor of 3
  bool still_falling = false;  ///< the sweep ended before the loss rose again
};

/// Reads a sweep. The loss is smoothed along the logarithm of the rate by local straight lines with Gaussian weights
/// (0.3 decades wide), which, unlike a running mean, does not lag behind:
///
///   steepest       where the smoothed loss falls fastest
///   half-way       where it has first fallen half of the way from the start to its minimum
///   minimum / 10   a tenth of the rate of its minimum
///   valley         two quarters into the last third of the longest falling subsequence, as in fastai's `valley`
///
/// A fall counts if it is more than 6 times the noise that is left after smoothing, and 1% of the start.
[[nodiscard]] LrAdvice read_sweep(const LrSweep& sweep);

}  // namespace lockstep::run
