#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned most_threads = 512;
constexpr unsigned sum_threads = 256;

/// One block a row, three passes over the logits: maximum, sum of exponentials, gradient.
template <class T, int N>
__global__ void __launch_bounds__(most_threads) rows_kernel(CrossEntropyArgs args) {
  LOCKSTEP_SHARED(float, shared, [32]);
  const std::int64_t start = std::int64_t{threadIdx.x} * N, step = std::int64_t{blockDim.x} * N;
  const auto factor = static_cast<float>(loss_factor(args));
  for (std::int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    T* logits = static_cast<T*>(args.logits) + r * args.stride;
    const std::int32_t target = args.targets[r];
    if (target < 0 || target >= args.classes) {
      // -1: not counted. Anything else is outside: NaN stops the run, instead of a fault.
      const float value = target == -1 ? 0.0F : not_a_number;
      if (threadIdx.x == 0) args.losses[r] = value;
      if (args.want_grad != 0)
        for (std::int64_t c = threadIdx.x; c < args.stride; c += blockDim.x)
          logits[c] = T(c < args.classes ? value : 0.0F);
      continue;
    }
    float largest = -infinity;
    for (std::int64_t c = start; c < args.classes; c += step) {
      const auto x = load_pack<N>(logits + c);
      for (int k = 0; k < N; ++k)
        if (c + k < args.classes) largest = fmaxf(largest, x.v[k]);
    }
    largest = block_reduce<Max>(largest, -infinity, shared);
    // An infinite maximum gives inf - inf = NaN here, a NaN logit gives NaN: both reach the loss and every gradient.
    float sum = 0.0F;
    for (std::int64_t c = start; c < args.classes; c += step) {
      const auto x = load_pack<N>(logits + c);
      for (int k = 0; k < N; ++k)
        if (c + k < args.classes) sum += expf(x.v[k] - largest);
    }
    const float shifted = static_cast<float>(logits[target]) - largest;
    sum = block_reduce<Sum>(sum, 0.0F, shared);
    if (threadIdx.x == 0) args.losses[r] = logf(sum) - shifted;
    if (args.want_grad == 0) continue;
    __syncthreads();  // everyone has read logits[target]: a shuffle alone does not order memory
    for (std::int64_t c = start; c < args.stride; c += step) {
      auto x = load_pack<N>(logits + c);
      for (int k = 0; k < N; ++k) {
        const float p = expf(x.v[k] - largest) / sum;
        x.v[k] = c + k < args.classes ? (c + k == target ? p - 1.0F : p) * factor : 0.0F;
      }
      store_pack<N>(logits + c, x);
    }
  }
}

/// One block: each thread sums a block of rows in order, thread 0 adds the blocks in order.
__global__ void __launch_bounds__(sum_threads) sum_kernel(CrossEntropyArgs args) {
  LOCKSTEP_SHARED(double, losses, [sum_threads]);
  LOCKSTEP_SHARED(double, weights, [sum_threads]);
  constexpr std::int64_t turn = std::int64_t{sum_threads} * loss_rows_per_block;
  for (std::int64_t base = 0; base < args.rows; base += turn) {
    const std::int64_t first = base + std::int64_t{threadIdx.x} * loss_rows_per_block;
    double loss = 0, weight = 0;
    for (std::int64_t r = first; r < args.rows && r < first + loss_rows_per_block; ++r) {
      loss += static_cast<double>(args.losses[r]);
      weight += args.targets[r] == -1 ? 0.0 : 1.0;
    }
    losses[threadIdx.x] = loss;
    weights[threadIdx.x] = weight;
    __syncthreads();
    if (threadIdx.x == 0)
      for (unsigned i = 0; i < sum_threads; ++i) {
        args.sum->loss += losses[i];
        args.sum->weight += weights[i];
      }
    __syncthreads();
  }
}

}  // namespace

void cross_entropy(const Exec& exec, const CrossEntropyArgs& args) {
  // Rows start `stride` apart, so that is what packs must divide.
  with_pack(args.dtype, packable(args.dtype, args.stride, {args.logits}), [&]<class T, int N>(Packed<T, N>) {
    launch(exec, rows_kernel<T, N>, dim3(blocks_for(args.rows, 1)),
           dim3(block_threads((args.stride + N - 1) / N, most_threads)), 0, args);
  });
  launch(exec, sum_kernel, dim3(1), dim3(sum_threads), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
