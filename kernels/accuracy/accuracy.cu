#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned count_threads = 256;

/// One block: a number of rows that is worth more would be a batch of hundreds of thousands.
template <class T>
__global__ void __launch_bounds__(count_threads) count_kernel(AccuracyArgs args) {
  LOCKSTEP_SHARED(int, shared, [32]);
  int own = 0;
  for (std::int64_t r = threadIdx.x; r < args.rows; r += count_threads)
    own += is_correct(static_cast<const T*>(args.logits) + r * args.stride, args.classes, args.targets[r]) ? 1 : 0;
  const int all = block_reduce<Sum>(own, 0, shared);
  if (threadIdx.x == 0) *args.correct += all;
}

}  // namespace

void accuracy(const Exec& exec, const AccuracyArgs& args) {
  with_element_type(args.dtype,
                    [&]<class T>(T*) { launch(exec, count_kernel<T>, dim3(1), dim3(count_threads), 0, args); });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
