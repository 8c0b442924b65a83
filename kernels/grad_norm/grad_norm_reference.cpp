#include <cmath>

#include "kernels/declare.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::reference {

void grad_leaf_sums(const Exec& /*exec*/, const GradLeafSumsArgs& args) {
  for (std::uint32_t j = 0; j < args.leaf_count; ++j) {
    const NormLeaf& leaf = args.leaves[j];
    double lane[norm_lanes] = {};
    args.bad[j] = -1;
    for (std::uint32_t k = 0; k < leaf.count; ++k) {
      const double g = static_cast<double>(gradient_at(args.grad, begin_in(leaf, args.grad.extent) + k));
      if (!std::isfinite(g) && args.bad[j] < 0) args.bad[j] = static_cast<std::int64_t>(leaf.begin + k);
      lane[k % norm_lanes] += g * g;
    }
    for (std::uint32_t half = norm_lanes / 2; half > 0; half /= 2)
      for (std::uint32_t k = 0; k < half; ++k) lane[k] += lane[k + half];
    args.sums[leaf.index] = lane[0];
  }
}

void grad_norm(const Exec& /*exec*/, const GradNormArgs& args) { fill_report(args); }

}  // namespace lockstep::kernels::reference
