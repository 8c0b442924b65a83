#include "kernels/declare.hpp"
#include "kernels/device/pack.hpp"
#include "kernels/dropout/dropout_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_size = 256;

/// A thread for each counter, that is for four elements that lie 16 apart: 16 threads read 16 neighbours.
template <class T>
__global__ void __launch_bounds__(block_size) dropout_kernel(DropoutArgs args) {
  const std::uint64_t first = first_sample_of(args), upper = upper_counter_of(args);
  const std::int64_t a_row = dropout_blocks(args.cols) * dropout_lanes, count = args.rows * a_row;
  for (std::int64_t index = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count;
       index += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t row = index / a_row, block = index % a_row / dropout_lanes, j = index % dropout_lanes;
    const Philox random =
        Philox::at(args.seed, dropout_counter(first + static_cast<std::uint64_t>(row), args.cols, block, j), upper);
    for (int w = 0; w < 4; ++w) {
      const std::int64_t e = block * dropout_block + w * dropout_lanes + j;
      if (e >= args.cols) continue;
      const float x = static_cast<float>(static_cast<const T*>(args.x)[row * args.cols + e]);
      static_cast<T*>(args.y)[row * args.cols + e] = T(dropped(x, random.word[w], args.threshold, args.scale));
    }
  }
}

}  // namespace

void dropout(const Exec& exec, const DropoutArgs& args) {
  const std::int64_t threads = args.rows * dropout_blocks(args.cols) * dropout_lanes;
  with_element_type(args.dtype, [&]<class T>(T*) {
    launch(exec, dropout_kernel<T>, dim3(blocks_for(threads, block_size)), dim3(block_size), 0, args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
