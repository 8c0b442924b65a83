#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr std::int64_t none = INT64_MAX;

/// One block a chunk, one thread a lane.
__global__ void __launch_bounds__(norm_lanes) chunk_kernel(GradNormArgs args) {
  LOCKSTEP_SHARED(double, sum, [norm_lanes]);
  LOCKSTEP_SHARED(std::int64_t, bad, [norm_lanes]);
  const unsigned lane = threadIdx.x;
  const std::uint64_t begin = args.begin + blockIdx.x * norm_chunk;
  const std::uint64_t stop = args.begin + args.count;
  const std::uint64_t end = stop - begin < norm_chunk ? stop : begin + norm_chunk;
  double own_sum = 0;
  std::int64_t own_bad = none;
  for (std::uint64_t i = begin + lane; i < end; i += norm_lanes) {
    const auto g = static_cast<double>(gradient_at(args.grad, i));
    if (own_bad == none && !(g - g == 0)) own_bad = static_cast<std::int64_t>(i);
    own_sum = own_sum + g * g;
  }
  sum[lane] = own_sum;
  bad[lane] = own_bad;
  for (unsigned half = norm_lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) {
      sum[lane] = sum[lane] + sum[lane + half];
      if (bad[lane + half] < bad[lane]) bad[lane] = bad[lane + half];
    }
  }
  if (lane == 0) {
    args.chunk_sums[blockIdx.x] = sum[0];
    args.chunk_bad[blockIdx.x] = bad[0] == none ? -1 : bad[0];
  }
}

__global__ void finish_kernel(GradNormArgs args, std::uint64_t chunks) { finish_report(args, chunks); }

}  // namespace

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  const std::uint64_t chunks = norm_chunks(args.count);
  if (chunks > 0) launch(exec, chunk_kernel, dim3(static_cast<unsigned>(chunks)), dim3(norm_lanes), 0, args);
  launch(exec, finish_kernel, dim3(1), dim3(1), 0, args, chunks);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
