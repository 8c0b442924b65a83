#pragma once

// What both passes of layernorm on a device share: a row in the registers of its threads. For .cu files only.
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned wide_threads = 256;  ///< most of a block that walks a row several times
constexpr unsigned row_warps = 4;       ///< of a block that walks a row a warp

/// P packs of N elements of T that a thread has of a row of `lanes` threads: pack p starts at column
/// (p lanes + lane) N. Those behind the row's end are not touched.
template <class T, int N, int P>
struct RowPart {
  Pack<T, N> pack[P];

  __device__ __forceinline__ void read(const T* row, int cols, int lane, int lanes) {
    for (int p = 0; p < P; ++p) {
      const int c = (p * lanes + lane) * N;
      if (c < cols) pack[p] = load<N>(row + c);
    }
  }
  /// Between two passes: 16-bit elements stay as they are, in half the registers of what they were widened to.
  __device__ __forceinline__ void stay_packed() {
    if constexpr (sizeof(T) < sizeof(float))
      for (int p = 0; p < P; ++p) keep_as_is(pack[p]);
  }
};
/// body(p, c) for the packs that exist.
template <int N, int P, class Body>
__device__ __forceinline__ void for_packs(int cols, int lane, int lanes, const Body& body) {
  for (int p = 0; p < P; ++p) {
    const int c = (p * lanes + lane) * N;
    if (c < cols) body(p, c);
  }
}

/// body(Parts<P>{}) with the fewest packs of N for which `threads` threads hold a row of `cols`: one of the numbers of
/// `floats`, which ascend, in each thread. False where a row has more.
template <int P>
struct Parts {};
template <int N, int floats, int... more, class Body>
bool with_parts(std::int64_t cols, std::int64_t threads, const Body& body) {
  if (cols <= threads * floats) {
    body(Parts<floats / N>{});
    return true;
  }
  if constexpr (sizeof...(more) > 0)
    return with_parts<N, more...>(cols, threads, body);
  else
    return false;
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
