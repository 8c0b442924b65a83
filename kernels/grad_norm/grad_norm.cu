#include "kernels/declare.hpp"
#include "kernels/device/simt.hpp"
#include "kernels/grad_norm/grad_norm_rule.hpp"
#include "kernels/grad_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

/// One block a leaf, one thread a lane.
__global__ void __launch_bounds__(norm_lanes) leaf_kernel(GradLeafSumsArgs args) {
  LOCKSTEP_SHARED(double, sum, [norm_lanes]);
  LOCKSTEP_SHARED(std::int64_t, bad, [norm_lanes]);
  const unsigned lane = threadIdx.x;
  const NormLeaf leaf = args.leaves[blockIdx.x];
  const std::uint64_t begin = begin_in(leaf, args.grad.extent);
  double own_sum = 0;
  std::int64_t own_bad = -1;
  for (std::uint32_t k = lane; k < leaf.count; k += norm_lanes) {
    const auto g = static_cast<double>(gradient_at(args.grad, begin + k));
    if (own_bad < 0 && !(g - g == 0)) own_bad = static_cast<std::int64_t>(leaf.begin + k);
    own_sum = own_sum + g * g;
  }
  sum[lane] = own_sum;
  bad[lane] = own_bad;
  for (unsigned half = norm_lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) {
      sum[lane] = sum[lane] + sum[lane + half];
      bad[lane] = first_of(bad[lane], bad[lane + half]);
    }
  }
  if (lane == 0) {
    args.sums[leaf.index] = sum[0];
    args.bad[blockIdx.x] = bad[0];
  }
}

constexpr unsigned tree_threads = 1024;

/// One block. Thread t sums the aligned block of `width` = 2^j terms from t width, a subtree; then neighbours are added
/// level by level, the last of an odd number being passed on, which is how T goes on above its aligned blocks.
__global__ void __launch_bounds__(tree_threads) tree_kernel(GradNormArgs args, std::uint32_t width) {
  LOCKSTEP_SHARED(double, sum, [tree_threads]);
  LOCKSTEP_SHARED(std::int64_t, bad, [tree_threads]);
  const std::uint32_t t = threadIdx.x, first = t * width;
  const std::uint32_t left = first < args.sum_count ? args.sum_count - first : 0;
  sum[t] = left > 0 ? tree_sum(args.sums + first, left < width ? left : width) : 0.0;  // which adds nothing
  std::int64_t own_bad = -1;
  for (std::uint32_t j = t; j < args.bad_count; j += blockDim.x) own_bad = first_of(own_bad, args.bad[j]);
  bad[t] = own_bad;
  for (std::uint32_t terms = blockDim.x; terms > 1;) {
    const std::uint32_t after = (terms + 1) / 2;
    __syncthreads();
    double pair_sum = 0;
    std::int64_t pair_bad = -1;
    if (t < after) {
      const bool is_pair = 2 * t + 1 < terms;
      pair_sum = is_pair ? sum[2 * t] + sum[2 * t + 1] : sum[2 * t];
      pair_bad = is_pair ? first_of(bad[2 * t], bad[2 * t + 1]) : bad[2 * t];
    }
    __syncthreads();  // all terms are read before the first is overwritten
    if (t < after) {
      sum[t] = pair_sum;
      bad[t] = pair_bad;
    }
    terms = after;
  }
  if (t == 0) fill_report(args, sum[0], bad[0]);
}

}  // namespace

void grad_leaf_sums(const Exec& exec, const GradLeafSumsArgs& args) {
  launch(exec, leaf_kernel, dim3(args.leaf_count), dim3(norm_lanes), 0, args);
}

void grad_norm(const Exec& exec, const GradNormArgs& args) {
  std::uint32_t width = 1;
  while (std::uint64_t{width} * tree_threads < args.sum_count) width *= 2;
  const std::uint32_t used = (args.sum_count + width - 1) / width;
  const std::uint32_t threads = used < 32 ? 32 : (used + 31) / 32 * 32;
  launch(exec, tree_kernel, dim3(1), dim3(threads), 0, args, width);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
