#include "kernels/declare.hpp"
#include "kernels/dropout/dropout_rule.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void dropout(const Exec& /*exec*/, const DropoutArgs& args) {
  const std::uint64_t first = first_sample_of(args), upper = upper_counter_of(args);
  for (std::int64_t r = 0; r < args.rows; ++r)
    for (std::int64_t e = 0; e < args.cols; ++e) {
      const std::int64_t within = e % dropout_block;
      const Philox random = Philox::at(
          args.seed,
          dropout_counter(first + static_cast<std::uint64_t>(r), args.cols, e / dropout_block, within % dropout_lanes),
          upper);
      const auto i = static_cast<std::size_t>(r * args.cols + e);
      store_element(args.y, args.dtype, i,
                    dropped(load_element(args.x, args.dtype, i), random.word[within / dropout_lanes], args.threshold,
                            args.scale));
    }
}

}  // namespace lockstep::kernels::reference
