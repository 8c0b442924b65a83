#include "run/lr_find_rules.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"

namespace lockstep::run {
namespace {

constexpr double smoothing_decades = 0.3;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Value and slope per step of a straight line through the losses around each step.
struct Smooth {
  std::vector<double> value, slope;
};

Smooth smoothed(const std::vector<double>& loss, double width) {
  const auto n = static_cast<std::ptrdiff_t>(loss.size());
  const auto reach = static_cast<std::ptrdiff_t>(std::ceil(4 * width));
  Smooth result;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double w0 = 0, w1 = 0, w2 = 0, l0 = 0, l1 = 0;
    for (std::ptrdiff_t j = std::max<std::ptrdiff_t>(0, i - reach); j <= std::min(n - 1, i + reach); ++j) {
      const auto d = static_cast<double>(j - i);
      const double w = std::exp(-0.5 * (d / width) * (d / width));
      const double value = loss[static_cast<std::size_t>(j)];
      w0 += w;
      w1 += w * d;
      w2 += w * d * d;
      l0 += w * value;
      l1 += w * d * value;
    }
    const double determinant = w0 * w2 - w1 * w1;
    result.value.push_back((w2 * l0 - w1 * l1) / determinant);
    result.slope.push_back((w0 * l1 - w1 * l0) / determinant);
  }
  return result;
}

/// The noise of one loss: half of the differences between neighbours are smaller than 0.6745 sqrt(2) of it.
double noise_of(const std::vector<double>& loss) {
  std::vector<double> differences;
  for (std::size_t i = 1; i < loss.size(); ++i) differences.push_back(std::abs(loss[i] - loss[i - 1]));
  return median(std::move(differences)) / (0.6745 * std::sqrt(2.0));
}

/// fastai's rule: the longest subsequence in which the loss falls, then half of a third behind its first third.
std::size_t valley(const std::vector<double>& loss) {
  std::vector<std::size_t> length(loss.size(), 1);
  std::size_t end = 0;
  for (std::size_t i = 1; i < loss.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      if (loss[i] < loss[j]) length[i] = std::max(length[i], length[j] + 1);
    if (length[end] < length[i]) end = i;
  }
  const std::size_t start = end - std::min(end, length[end]);
  const double section = static_cast<double>(end - start) / 3;
  return start + static_cast<std::size_t>(section) + static_cast<std::size_t>(section / 2);
}

}  // namespace

LrAdvice read_sweep(const LrSweep& sweep) {
  const std::vector<double>&lr = sweep.lr, &loss = sweep.loss;
  require(lr.size() == loss.size() && lr.size() >= 2, "read_sweep: as many rates as losses, and at least two");
  const auto n = lr.size();
  const double decades = std::log10(lr.back() / lr.front());
  const double width = std::max(1.5, smoothing_decades * static_cast<double>(n - 1) / decades);
  const Smooth smooth = smoothed(loss, width);
  LrAdvice advice{.smooth = smooth.value, .rules = {}};

  const auto lowest =
      static_cast<std::size_t>(std::min_element(smooth.value.begin(), smooth.value.end()) - smooth.value.begin());
  const auto first = loss.begin() + static_cast<std::ptrdiff_t>(std::min(n, std::max<std::size_t>(5, n / 10)));
  const double start = median({loss.begin(), first}), minimum = smooth.value[lowest];
  const double left = noise_of(loss) * std::sqrt(1 / (2 * std::sqrt(3.141592653589793) * width));
  advice.still_falling = lowest + 1 == n;
  if (start - minimum < std::max(6 * left, 0.01 * std::abs(start))) return advice;

  const auto steepest = static_cast<std::size_t>(
      std::min_element(smooth.slope.begin(), smooth.slope.begin() + static_cast<std::ptrdiff_t>(lowest) + 1) -
      smooth.slope.begin());
  std::size_t half = 0;
  while (smooth.value[half] > start - (start - minimum) / 2) ++half;
  advice.rules = {{"steepest", "the loss falls fastest", lr[steepest]},
                  {"half-way", "it has fallen half of the way to its minimum", lr[half]},
                  {"minimum / 10", "a tenth of the rate with the smallest loss", lr[lowest] / 10},
                  {"valley", "a half into the longest fall, as in fastai", lr[valley(smooth.value)]}};
  advice.lr = std::sqrt(lr[steepest] * lr[half]);
  advice.agree = std::abs(std::log(lr[steepest] / lr[half])) <= std::log(3.0);
  const auto [least, greatest] = std::minmax_element(advice.rules.begin(), advice.rules.end(),
                                                     [](const LrRule& a, const LrRule& b) { return a.lr < b.lr; });
  advice.low = least->lr;
  advice.high = greatest->lr;
  return advice;
}

}  // namespace lockstep::run
