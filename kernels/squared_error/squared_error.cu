#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"
#include "kernels/squared_error/squared_error_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;

template <class T>
__global__ void __launch_bounds__(block_size) rows_kernel(SquaredErrorArgs args) {
  const float factor = squared_error_factor(args);
  for (std::int64_t r = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; r < args.rows;
       r += std::int64_t{gridDim.x} * blockDim.x)
    args.losses[r] = squared_error_row<T>(args, r, factor);
}

/// One block: each thread sums a block of rows in order, thread 0 adds the blocks in order.
__global__ void __launch_bounds__(block_size) sum_kernel(SquaredErrorArgs args) {
  LOCKSTEP_SHARED(double, losses, [block_size]);
  LOCKSTEP_SHARED(double, weights, [block_size]);
  constexpr std::int64_t turn = std::int64_t{block_size} * loss_rows_per_block;
  for (std::int64_t base = 0; base < args.rows; base += turn) {
    const std::int64_t first = base + std::int64_t{threadIdx.x} * loss_rows_per_block;
    double loss = 0, weight = 0;
    for (std::int64_t r = first; r < args.rows && r < first + loss_rows_per_block; ++r) {
      loss += static_cast<double>(args.losses[r]);
      weight += args.targets[r] >= 0 ? 1.0 : 0.0;
    }
    losses[threadIdx.x] = loss;
    weights[threadIdx.x] = weight;
    __syncthreads();
    if (threadIdx.x == 0)
      for (unsigned i = 0; i < block_size; ++i) {
        args.sum->loss += losses[i];
        args.sum->weight += weights[i];
      }
    __syncthreads();
  }
}

}  // namespace

void squared_error(const Exec& exec, const SquaredErrorArgs& args) {
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, rows_kernel<T>, dim3(blocks_for(args.rows, block_size)), dim3(block_size), 0, args);
  });
  launch(exec, sum_kernel, dim3(1), dim3(block_size), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
