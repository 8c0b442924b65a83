#include <vector>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"
#include "kernels/relu_pool/relu_pool_rule.hpp"

namespace lockstep::kernels::reference {
namespace {

struct Best {
  float value = 0;
  std::int64_t at = -1;  ///< element of pre; -1: nothing is above 0
};

Best best_of(const void* pre, const void* bias, DType dtype, const PoolShape& s, std::int64_t n, std::int64_t i,
             std::int64_t j, std::int64_t c) {
  Best best;
  for (std::int64_t row = i * s.pool; row < (i + 1) * s.pool; ++row)
    for (std::int64_t column = j * s.pool; column < (j + 1) * s.pool; ++column) {
      const std::int64_t at = ((n * s.height + row) * s.width + column) * s.channels + c;
      const float value = load_element(pre, dtype, static_cast<std::size_t>(at)) +
                          load_element(bias, dtype, static_cast<std::size_t>(c));
      if (takes_over(value, best.value)) best = {value, at};
    }
  return best;
}

/// visit(n, i, j, c, element of y) for every window.
template <class Visit>
void each_window(const PoolShape& s, const Visit& visit) {
  std::int64_t element_of_y = 0;
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t i = 0; i < s.out_height(); ++i)
      for (std::int64_t j = 0; j < s.out_width(); ++j)
        for (std::int64_t c = 0; c < s.channels; ++c) visit(n, i, j, c, element_of_y++);
}

}  // namespace

void relu_pool_forward(const Exec& /*exec*/, const ReluPoolForwardArgs& args) {
  each_window(args.shape, [&](std::int64_t n, std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t to) {
    store_element(args.y, args.dtype, static_cast<std::size_t>(to),
                  best_of(args.pre, args.bias, args.dtype, args.shape, n, i, j, c).value);
  });
}

void relu_pool_backward(const Exec& /*exec*/, const ReluPoolBackwardArgs& args) {
  const PoolShape& s = args.shape;
  std::vector<float> gradient(static_cast<std::size_t>(s.batch * s.height * s.width * s.channels));
  each_window(s, [&](std::int64_t n, std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t from) {
    const Best best = best_of(args.pre, args.bias, args.dtype, s, n, i, j, c);
    if (best.at >= 0)
      gradient[static_cast<std::size_t>(best.at)] = load_element(args.dy, args.dtype, static_cast<std::size_t>(from));
  });
  for (std::size_t i = 0; i < gradient.size(); ++i) store_element(args.dpre, args.dtype, i, gradient[i]);
}

}  // namespace lockstep::kernels::reference
