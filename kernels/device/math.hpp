#pragma once

// Functions whose accuracy follows what their results are rounded to: the hardware's own approximations, good to a few
// units of fp32, for 16-bit types, where a row-wise kernel would otherwise wait for arithmetic and not for memory. For
// .cu files only.
#include "kernels/device/memory.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

template <class T>
__device__ __forceinline__ float exp_for(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return expf(x);
  else
    return __expf(x);
}
/// 1 / x for x >= 1, infinity included.
template <class T>
__device__ __forceinline__ float reciprocal_for(float x) {
  if constexpr (sizeof(T) == sizeof(float))
    return 1.0F / x;
  else
    return __fdividef(1.0F, x);
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
