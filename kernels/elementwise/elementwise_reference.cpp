#include "kernels/declare.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::reference {

void cast(const Exec& /*exec*/, const CastArgs& args) {
  for (std::size_t i = 0; i < args.count; ++i)
    store_element(args.to, args.to_dtype, i, load_element(args.from, args.from_dtype, i));
}

void axpy(const Exec& /*exec*/, const AxpyArgs& args) {
  const auto a = static_cast<float>(args.a);
  for (std::size_t i = 0; i < args.count; ++i) {
    const float product = a * load_element(args.x, args.x_dtype, i);
    store_element(args.y, args.y_dtype, i, load_element(args.y, args.y_dtype, i) + product);
  }
}

void scale(const Exec& /*exec*/, const ScaleArgs& args) {
  const auto a = static_cast<float>(args.a);
  for (std::size_t i = 0; i < args.count; ++i)
    store_element(args.y, args.dtype, i, a * load_element(args.y, args.dtype, i));
}

void ordered_sum(const Exec& /*exec*/, const OrderedSumArgs& args) {
  for (std::size_t i = 0; i < args.count; ++i) store_element(args.to, args.to_dtype, i, gradient_at(args.sources, i));
}

}  // namespace lockstep::kernels::reference
