#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void bias_grad(const Exec&, const BiasGradArgs& args) {
  for (std::int64_t c = 0; c < args.cols; ++c) {
    double sum = 0;
    for (std::int64_t r = 0; r < args.rows; ++r) sum += element(args.dy, args.dtype, r * args.cols + c);
    contribute(args.dbias[c], sum, args.accumulate != 0);
  }
}

}  // namespace lockstep::kernels::reference
