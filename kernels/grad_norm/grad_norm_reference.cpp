#include <algorithm>
#include <cmath>

#include "kernels/declare.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::reference {

void grad_norm(const Exec& /*exec*/, const GradNormArgs& args) {
  const std::uint64_t chunks = norm_chunks(args.count);
  for (std::uint64_t c = 0; c < chunks; ++c) {
    const std::uint64_t begin = args.begin + c * norm_chunk;
    const std::uint64_t end = std::min(begin + norm_chunk, args.begin + args.count);
    double lane[norm_lanes] = {};
    args.chunk_bad[c] = -1;
    for (std::uint64_t i = begin; i < end; ++i) {
      const double g = static_cast<double>(gradient_at(args.grad, i));
      if (!std::isfinite(g) && args.chunk_bad[c] < 0) args.chunk_bad[c] = static_cast<std::int64_t>(i);
      lane[(i - begin) % norm_lanes] += g * g;
    }
    for (std::uint32_t half = norm_lanes / 2; half > 0; half /= 2)
      for (std::uint32_t k = 0; k < half; ++k) lane[k] += lane[k + half];
    args.chunk_sums[c] = lane[0];
  }
  finish_report(args, chunks);
}

}  // namespace lockstep::kernels::reference
