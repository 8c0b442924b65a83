#include "kernels/declare.hpp"
#include "kernels/element.hpp"

namespace lockstep::kernels::reference {

void accuracy(const Exec& /*exec*/, const AccuracyArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    for (std::int64_t r = 0; r < args.rows; ++r)
      *args.correct += is_correct(static_cast<const T*>(args.logits) + r * args.stride, args.classes, args.targets[r]);
  });
}

}  // namespace lockstep::kernels::reference
