#include <vector>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void embedding_forward(const Exec&, const EmbeddingForwardArgs& args) {
  for (std::int64_t p = 0; p < args.batch * args.length; ++p)
    for (std::int64_t c = 0; c < args.cols; ++c) {
      double y = element(args.wte, args.dtype, args.tokens[p] * args.cols + c);
      if (args.wpe != nullptr) y += element(args.wpe, args.dtype, p % args.length * args.cols + c);
      set_element(args.y, args.dtype, p * args.cols + c, y);
    }
}

void embedding_backward(const Exec&, const EmbeddingBackwardArgs& args) {
  // One column at a time, so that the sums in double stay small.
  std::vector<double> dwte(static_cast<std::size_t>(args.wte_rows));
  std::vector<double> dwpe(static_cast<std::size_t>(args.dwpe != nullptr ? args.wpe_rows : args.length));
  for (std::int64_t c = 0; c < args.cols; ++c) {
    dwte.assign(dwte.size(), 0.0);
    dwpe.assign(dwpe.size(), 0.0);
    for (std::int64_t p = 0; p < args.batch * args.length; ++p) {
      const double dy = element(args.dy, args.dtype, p * args.cols + c);
      dwte[static_cast<std::size_t>(args.tokens[p])] += dy;
      dwpe[static_cast<std::size_t>(p % args.length)] += dy;
    }
    for (std::size_t v = 0; v < dwte.size(); ++v)
      contribute(args.dwte[static_cast<std::int64_t>(v) * args.cols + c], dwte[v], args.accumulate_dwte != 0);
    if (args.dwpe == nullptr) continue;
    for (std::size_t t = 0; t < dwpe.size(); ++t)
      contribute(args.dwpe[static_cast<std::int64_t>(t) * args.cols + c], dwpe[t], args.accumulate_dwpe != 0);
  }
}

}  // namespace lockstep::kernels::reference
