#include <vector>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {
namespace {

/// Calls visit(pixel of x, tap) for every tap of pixel (n, i, j) that lies inside the image.
template <class Visit>
void each_tap(const ConvolutionShape& s, std::int64_t n, std::int64_t i, std::int64_t j, const Visit& visit) {
  const std::int64_t radius = s.kernel / 2;
  for (std::int64_t a = 0; a < s.kernel; ++a)
    for (std::int64_t b = 0; b < s.kernel; ++b) {
      const std::int64_t row = i + a - radius, column = j + b - radius;
      if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
      visit((n * s.height + row) * s.width + column, a * s.kernel + b);
    }
}

/// Calls visit(pixel of y, pixel of x, tap) for every pair that a weight joins.
template <class Visit>
void each_pair(const ConvolutionShape& s, const Visit& visit) {
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t i = 0; i < s.height; ++i)
      for (std::int64_t j = 0; j < s.width; ++j)
        each_tap(s, n, i, j,
                 [&](std::int64_t from, std::int64_t tap) { visit((n * s.height + i) * s.width + j, from, tap); });
}

}  // namespace

void convolution_forward(const Exec& /*exec*/, const ConvolutionForwardArgs& args) {
  const ConvolutionShape& s = args.shape;
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t i = 0; i < s.height; ++i)
      for (std::int64_t j = 0; j < s.width; ++j)
        for (std::int64_t o = 0; o < s.out; ++o) {
          double sum = 0;
          each_tap(s, n, i, j, [&](std::int64_t pixel, std::int64_t tap) {
            for (std::int64_t c = 0; c < s.in; ++c)
              sum += element(args.x, args.dtype, pixel * s.in + c) *
                     element(args.weight, args.dtype, (tap * s.in + c) * s.out + o);
          });
          set_element(args.y, args.dtype, ((n * s.height + i) * s.width + j) * s.out + o, sum);
        }
}

void convolution_input_grad(const Exec& /*exec*/, const ConvolutionInputGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  for (std::int64_t c = 0; c < s.in; ++c) {
    std::vector<double> sums(static_cast<std::size_t>(s.pixels()));
    each_pair(s, [&](std::int64_t to, std::int64_t from, std::int64_t tap) {
      for (std::int64_t o = 0; o < s.out; ++o)
        sums[static_cast<std::size_t>(from)] += element(args.dy, args.dtype, to * s.out + o) *
                                                element(args.weight, args.dtype, (tap * s.in + c) * s.out + o);
    });
    for (std::int64_t pixel = 0; pixel < s.pixels(); ++pixel)
      set_element(args.dx, args.dtype, pixel * s.in + c, sums[static_cast<std::size_t>(pixel)]);
  }
}

void convolution_weight_grad(const Exec& /*exec*/, const ConvolutionWeightGradArgs& args) {
  const ConvolutionShape& s = args.shape;
  std::vector<double> sums(static_cast<std::size_t>(s.taps() * s.in * s.out));
  each_pair(s, [&](std::int64_t to, std::int64_t from, std::int64_t tap) {
    for (std::int64_t c = 0; c < s.in; ++c)
      for (std::int64_t o = 0; o < s.out; ++o)
        sums[static_cast<std::size_t>((tap * s.in + c) * s.out + o)] +=
            element(args.x, args.dtype, from * s.in + c) * element(args.dy, args.dtype, to * s.out + o);
  });
  for (std::size_t i = 0; i < sums.size(); ++i) contribute(args.dweight[i], sums[i], args.accumulate != 0);
}

}  // namespace lockstep::kernels::reference
