#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {
namespace {

const double root_2_over_pi = std::sqrt(2.0 / std::numbers::pi);
constexpr double cubic = 0.044715;

/// The limit at minus infinity, where the formula is 0 times infinity.
double gelu(double x) {
  if (std::isinf(x)) return std::fmax(x, -0.0);
  return 0.5 * x * (1.0 + std::tanh(root_2_over_pi * (x + cubic * x * x * x)));
}

/// Beyond +-30 the derivative is 1 or 0 to the last bit; the bound keeps the formula from 0 times infinity.
double gelu_derivative(double x) {
  if (std::isnan(x)) return x;
  x = std::clamp(x, -30.0, 30.0);
  const double t = std::tanh(root_2_over_pi * (x + cubic * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root_2_over_pi * (1.0 + 3.0 * cubic * x * x);
}

}  // namespace

void gelu_forward(const Exec&, const GeluForwardArgs& args) {
  for (std::int64_t i = 0; i < args.rows * args.cols; ++i) {
    double x = element(args.x, args.dtype, i);
    if (args.bias != nullptr) {
      set_element(args.pre, args.dtype, i, x + element(args.bias, args.dtype, i % args.cols));
      x = element(args.pre, args.dtype, i);  // as backward will see it
    }
    set_element(args.y, args.dtype, i, gelu(x));
  }
}

void gelu_backward(const Exec&, const GeluBackwardArgs& args) {
  for (std::int64_t i = 0; i < args.rows * args.cols; ++i)
    set_element(args.dx, args.dtype, i,
                element(args.dy, args.dtype, i) * gelu_derivative(element(args.pre, args.dtype, i)));
  if (args.dbias == nullptr) return;
  for (std::int64_t c = 0; c < args.cols; ++c) {
    double sum = 0;  // of dx as stored, so that bias_grad(dx) means the same
    for (std::int64_t r = 0; r < args.rows; ++r) sum += element(args.dx, args.dtype, r * args.cols + c);
    contribute(args.dbias[c], sum, args.accumulate != 0);
  }
}

}  // namespace lockstep::kernels::reference
