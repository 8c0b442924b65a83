#include "kernels/declare.hpp"
#include "kernels/element.hpp"
#include "kernels/squared_error/squared_error_rule.hpp"

namespace lockstep::kernels::reference {

void squared_error(const Exec& /*exec*/, const SquaredErrorArgs& args) {
  const float factor = squared_error_factor(args);
  with_element_type(args.dtype, [&]<class T>(T*) {
    for (std::int64_t r = 0; r < args.rows; ++r) args.losses[r] = squared_error_row<T>(args, r, factor);
  });
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
