#include <cmath>

#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void cross_entropy(const Exec&, const CrossEntropyArgs& args) {
  const double factor = loss_factor(args);
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const std::int64_t row = r * args.stride;
    const std::int32_t target = args.targets[r];
    if (target < 0) {
      args.losses[r] = 0;
      if (args.want_grad != 0)
        for (std::int64_t c = 0; c < args.stride; ++c) set_element(args.logits, args.dtype, row + c, 0);
      continue;
    }
    double largest = element(args.logits, args.dtype, row);
    for (std::int64_t c = 1; c < args.classes; ++c)
      largest = std::fmax(largest, element(args.logits, args.dtype, row + c));
    double sum = 0;
    for (std::int64_t c = 0; c < args.classes; ++c)
      sum += std::exp(element(args.logits, args.dtype, row + c) - largest);
    args.losses[r] = static_cast<float>(std::log(sum) - (element(args.logits, args.dtype, row + target) - largest));
    if (args.want_grad == 0) continue;
    for (std::int64_t c = 0; c < args.stride; ++c) {
      double gradient = 0;
      if (c < args.classes) {
        const double p = std::exp(element(args.logits, args.dtype, row + c) - largest) / sum;
        gradient = (p - (c == target ? 1.0 : 0.0)) * factor;
      }
      set_element(args.logits, args.dtype, row + c, gradient);
    }
  }
  for (std::int64_t block = 0; block < args.rows; block += loss_rows_per_block) {
    double loss = 0, weight = 0;
    for (std::int64_t r = block; r < args.rows && r < block + loss_rows_per_block; ++r) {
      loss += static_cast<double>(args.losses[r]);
      weight += args.targets[r] >= 0 ? 1.0 : 0.0;
    }
    args.sum->loss += loss;
    args.sum->weight += weight;
  }
}

}  // namespace lockstep::kernels::reference
