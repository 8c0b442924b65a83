// Bytes a logit: read once from memory for maximum and sum together, read again for the gradient (from the cache: a row
// of 50,304 bf16 is 100 KB, and two are under way on a multiprocessor), written once. Without a gradient read once.
#include "kernels/declare.hpp"
#include "kernels/device/math.hpp"
#include "kernels/device/pack.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned most_threads = 1024;
constexpr unsigned blocks_each = 2;  ///< of a multiprocessor, of most_threads
constexpr unsigned sum_threads = 256;

/// The sum of exponentials of what was seen, relative to its maximum.
template <class T>
struct OnlineSum {
  float largest = -infinity;
  float sum = 0.0F;

  template <int N>
  __device__ __forceinline__ void add(const Values<N>& x) {
    float maximum = x.v[0];
    for (int k = 1; k < N; ++k) maximum = fmaxf(maximum, x.v[k]);
    if (maximum > largest) {
      sum *= exp_for<T>(largest - maximum);
      largest = maximum;
    }
    // Before anything above -infinity was seen the sum stays 0, and is no NaN.
    const float shift = largest == -infinity ? 0.0F : largest;
    for (int k = 0; k < N; ++k) sum += exp_for<T>(x.v[k] - shift);
  }
};

/// One block a row: maximum and sum of exponentials in one walk over the logits, the gradient in a second one.
template <class T, int N>
__global__ void __launch_bounds__(most_threads, resident_blocks(most_threads, blocks_each))
    rows_kernel(CrossEntropyArgs args) {
  LOCKSTEP_SHARED(float, shared, [32]);
  const auto classes = static_cast<std::int32_t>(args.classes), stride = static_cast<std::int32_t>(args.stride);
  const auto thread = static_cast<std::int32_t>(threadIdx.x), threads = static_cast<std::int32_t>(blockDim.x);
  const auto factor = static_cast<float>(loss_factor(args));
  for (std::int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    T* const logits = static_cast<T*>(args.logits) + r * args.stride;
    const std::int32_t target = args.targets[r];
    if (target < 0 || target >= classes) {
      // -1: not counted. Anything else is outside: NaN stops the run, instead of a fault.
      const float value = target == -1 ? 0.0F : not_a_number;
      if (thread == 0) args.losses[r] = value;
      if (args.want_grad != 0)
        for (std::int32_t c = thread; c < stride; c += threads) logits[c] = T(c < classes ? value : 0.0F);
      continue;
    }
    const std::int32_t whole = classes / N;  // packs without padding
    OnlineSum<T> own;
#pragma unroll 2
    for (std::int32_t pack = thread; pack < whole; pack += threads) own.add(load_pack<N>(logits + pack * N));
    for (std::int32_t c = whole * N + thread; c < classes; c += threads) own.add(load_pack<1>(logits + c));
    // An infinite maximum gives inf - inf = NaN here, a NaN logit gives NaN: both reach the loss and every gradient.
    const float largest = block_reduce<Max>(own.largest, -infinity, shared);
    const float shifted = widen(logits[target]) - largest;
    const float sum = block_reduce<Sum>(own.sum * exp_for<T>(own.largest - largest), 0.0F, shared);
    if (thread == 0) args.losses[r] = logf(sum) - shifted;
    if (args.want_grad == 0) continue;
    __syncthreads();  // everyone has read logits[target]: a shuffle alone does not order memory
    const float share = factor / sum;
#pragma unroll 2
    for (std::int32_t c = thread * N; c < stride; c += threads * N) {
      auto x = load_pack<N>(logits + c);
      for (int k = 0; k < N; ++k) x.v[k] = exp_for<T>(x.v[k] - largest) * share;
      if (target >= c && target < c + N)
        for (int k = 0; k < N; ++k) x.v[k] -= c + k == target ? factor : 0.0F;
      if (c + N > classes)
        for (int k = 0; k < N; ++k) x.v[k] = c + k < classes ? x.v[k] : 0.0F;
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
