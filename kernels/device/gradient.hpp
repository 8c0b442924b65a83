#pragma once

// Gradients as device kernels read them. For .cu files only.
#include "kernels/device/memory.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

inline constexpr int any_number = 0;  ///< of sources: known at run time

/// Elements [i, i + N) of the sum of the sources, of type G, which lie on a multiple of N. `sources` is 1, the usual
/// case without a loop or a tree in it, or any_number.
template <int N, int sources, class G>
__device__ __forceinline__ Values<N> gradient_pack(const GradSources& grad, std::size_t i) {
  const auto source = [&](int k) { return widen(load_once<N>(static_cast<const G*>(grad.source[k]) + i)); };
  if constexpr (sources == 1)
    return source(0);
  else
    return sum_of_sources<0, max_grad_sources>(grad.count, source);
}

/// body(static_cast<G*>(nullptr), Sources<n>{}) with the type of the sources and 1 or any_number for n.
template <int n>
struct Sources {
  static constexpr int count = n;
};
template <class Body>
void with_sources(const GradSources& grad, const Body& body) {
  with_element_type(grad.dtype, [&]<class G>(G* type) {
    return grad.count == 1 ? body(type, Sources<1>{}) : body(type, Sources<any_number>{});
  });
}

/// Whether packs can be read from all of them, where the index allows it.
inline bool is_aligned(const GradSources& grad) {
  for (int k = 0; k < grad.count; ++k)
    if (!is_aligned({grad.source[k]})) return false;
  return true;
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
