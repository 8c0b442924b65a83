#include <cmath>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void layernorm_forward(const Exec&, const LayernormForwardArgs& args) {
  const DType dtype = args.dtype;
  const auto cols = static_cast<double>(args.cols);
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const std::int64_t row = r * args.cols;
    const void* s = args.x;
    if (args.residual != nullptr) {
      for (std::int64_t c = 0; c < args.cols; ++c)
        set_element(args.sum, dtype, row + c, element(args.x, dtype, row + c) + element(args.residual, dtype, row + c));
      s = args.sum;
    }
    double mean = 0, variance = 0;
    for (std::int64_t c = 0; c < args.cols; ++c) mean += element(s, dtype, row + c);
    mean /= cols;
    for (std::int64_t c = 0; c < args.cols; ++c) {
      const double d = element(s, dtype, row + c) - mean;
      variance += d * d;
    }
    const double rstd = 1.0 / std::sqrt(variance / cols + static_cast<double>(args.eps));
    for (std::int64_t c = 0; c < args.cols; ++c)
      set_element(
          args.y, dtype, row + c,
          element(args.gamma, dtype, c) * (element(s, dtype, row + c) - mean) * rstd + element(args.beta, dtype, c));
    args.mean[r] = static_cast<float>(mean);
    args.rstd[r] = static_cast<float>(rstd);
  }
}

void layernorm_backward(const Exec&, const LayernormBackwardArgs& args) {
  const DType dtype = args.dtype;
  const auto cols = static_cast<double>(args.cols);
  const auto normalised = [&](std::int64_t r, std::int64_t c) {
    return (element(args.x, dtype, r * args.cols + c) - static_cast<double>(args.mean[r])) *
           static_cast<double>(args.rstd[r]);
  };
  // The parameters first: dx may overwrite dy.
  for (std::int64_t c = 0; c < args.cols; ++c) {
    double dgamma = 0, dbeta = 0;
    for (std::int64_t r = 0; r < args.rows; ++r) {
      const double dy = element(args.dy, dtype, r * args.cols + c);
      dgamma += dy * normalised(r, c);
      dbeta += dy;
    }
    contribute(args.dgamma[c], dgamma, args.accumulate_dgamma != 0);
    contribute(args.dbeta[c], dbeta, args.accumulate_dbeta != 0);
  }
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const std::int64_t row = r * args.cols;
    double mean_g = 0, mean_gx = 0;  // means over the row of g = dy gamma and of g times the normalised x
    for (std::int64_t c = 0; c < args.cols; ++c) {
      const double g = element(args.dy, dtype, row + c) * element(args.gamma, dtype, c);
      mean_g += g;
      mean_gx += g * normalised(r, c);
    }
    mean_g /= cols;
    mean_gx /= cols;
    for (std::int64_t c = 0; c < args.cols; ++c) {
      const double g = element(args.dy, dtype, row + c) * element(args.gamma, dtype, c);
      double dx = static_cast<double>(args.rstd[r]) * (g - mean_g - normalised(r, c) * mean_gx);
      if (args.dsum != nullptr) dx += element(args.dsum, dtype, row + c);
      set_element(args.dx, dtype, row + c, dx);
    }
  }
}

}  // namespace lockstep::kernels::reference
