#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned most_threads = 256;
constexpr std::int64_t rows_per_block = 16;  // whose share of dgamma and dbeta is summed first
constexpr std::int64_t row_blocks(std::int64_t rows) { return (rows + rows_per_block - 1) / rows_per_block; }
// Bytes of dynamic shared memory that every device gives unasked, beside those of the block's reductions.
constexpr std::size_t shared_limit = 48 * 1024 - 32 * sizeof(float);

/// One block a row; a thread meets the same packs in all three passes.
template <class T, int N>
__global__ void __launch_bounds__(most_threads) forward_kernel(LayernormForwardArgs args) {
  LOCKSTEP_SHARED(float, shared, [32]);
  const std::int64_t start = std::int64_t{threadIdx.x} * N, step = std::int64_t{blockDim.x} * N;
  const auto width = static_cast<float>(args.cols);
  for (std::int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    const std::int64_t row = r * args.cols;
    const T* s = static_cast<const T*>(args.x) + row;
    float sum = 0.0F;
    if (args.residual != nullptr) {
      T* out = static_cast<T*>(args.sum) + row;
      for (std::int64_t c = start; c < args.cols; c += step) {
        auto x = load_pack<N>(s + c);
        const auto residual = load_pack<N>(static_cast<const T*>(args.residual) + row + c);
        for (int k = 0; k < N; ++k) x.v[k] += residual.v[k];
        x = store_pack<N>(out + c, x);
        for (int k = 0; k < N; ++k) sum += x.v[k];
      }
      s = out;
    } else {
      for (std::int64_t c = start; c < args.cols; c += step) {
        const auto x = load_pack<N>(s + c);
        for (int k = 0; k < N; ++k) sum += x.v[k];
      }
    }
    const float mean = block_reduce<Sum>(sum, 0.0F, shared) / width;
    float squares = 0.0F;
    for (std::int64_t c = start; c < args.cols; c += step) {
      const auto x = load_pack<N>(s + c);
      for (int k = 0; k < N; ++k) squares += (x.v[k] - mean) * (x.v[k] - mean);
    }
    const float rstd = 1.0F / sqrtf(block_reduce<Sum>(squares, 0.0F, shared) / width + args.eps);
    for (std::int64_t c = start; c < args.cols; c += step) {
      auto x = load_pack<N>(s + c);
      const auto gamma = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      const auto beta = load_pack<N>(static_cast<const T*>(args.beta) + c);
      for (int k = 0; k < N; ++k) x.v[k] = (x.v[k] - mean) * rstd * gamma.v[k] + beta.v[k];
      store_pack<N>(static_cast<T*>(args.y) + row + c, x);
    }
    if (threadIdx.x == 0) {
      args.mean[r] = mean;
      args.rstd[r] = rstd;
    }
  }
}

/// One block for each rows_per_block rows. Each thread keeps the sums of its own columns, in shared memory
/// where they fit and in the scratch itself where not.
template <class T, int N>
__global__ void __launch_bounds__(most_threads) backward_kernel(LayernormBackwardArgs args, bool in_shared) {
  LOCKSTEP_SHARED(float, shared, [32]);
  LOCKSTEP_DYNAMIC_SHARED(float, sums);
  const std::int64_t cols = args.cols;
  float* partial = static_cast<float*>(args.scratch) + blockIdx.x * 2 * cols;
  float* dgamma = in_shared ? sums : partial;
  float* dbeta = dgamma + cols;
  const std::int64_t start = std::int64_t{threadIdx.x} * N, step = std::int64_t{blockDim.x} * N;
  const auto width = static_cast<float>(cols);
  for (std::int64_t c = start; c < cols; c += step)
    for (int k = 0; k < N; ++k) dgamma[c + k] = dbeta[c + k] = 0.0F;
  const std::int64_t first = std::int64_t{blockIdx.x} * rows_per_block;
  const std::int64_t last = args.rows - first < rows_per_block ? args.rows : first + rows_per_block;
  for (std::int64_t r = first; r < last; ++r) {
    const T* dy = static_cast<const T*>(args.dy) + r * cols;
    const T* x = static_cast<const T*>(args.x) + r * cols;
    const float mean = args.mean[r], rstd = args.rstd[r];
    float sum_g = 0.0F, sum_gx = 0.0F;
    for (std::int64_t c = start; c < cols; c += step) {
      const auto d = load_pack<N>(dy + c);
      const auto s = load_pack<N>(x + c);
      const auto gamma = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      for (int k = 0; k < N; ++k) {
        const float dx_part = d.v[k] * ((s.v[k] - mean) * rstd);
        dgamma[c + k] += dx_part;
        dbeta[c + k] += d.v[k];
        sum_g += d.v[k] * gamma.v[k];
        sum_gx += dx_part * gamma.v[k];
      }
    }
    const float mean_g = block_reduce<Sum>(sum_g, 0.0F, shared) / width;
    const float mean_gx = block_reduce<Sum>(sum_gx, 0.0F, shared) / width;
    for (std::int64_t c = start; c < cols; c += step) {
      auto d = load_pack<N>(dy + c);
      const auto s = load_pack<N>(x + c);
      const auto gamma = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      for (int k = 0; k < N; ++k) d.v[k] = (d.v[k] * gamma.v[k] - mean_g - (s.v[k] - mean) * rstd * mean_gx) * rstd;
      if (args.dsum != nullptr) {
        const auto more = load_pack<N>(static_cast<const T*>(args.dsum) + r * cols + c);
        for (int k = 0; k < N; ++k) d.v[k] += more.v[k];
      }
      store_pack<N>(static_cast<T*>(args.dx) + r * cols + c, d);
    }
  }
  if (!in_shared) return;
  for (std::int64_t c = start; c < cols; c += step)
    for (int k = 0; k < N; ++k) {
      partial[c + k] = dgamma[c + k];
      partial[cols + c + k] = dbeta[c + k];
    }
}

}  // namespace

void layernorm_forward(const Exec& exec, const LayernormForwardArgs& args) {
  const bool packs = packable(args.dtype, args.cols, {args.x, args.residual, args.sum, args.gamma, args.beta, args.y});
  with_pack(args.dtype, packs, [&]<class T, int N>(Packed<T, N>) {
    launch(exec, forward_kernel<T, N>, dim3(blocks_for(args.rows, 1)), dim3(block_threads(args.cols / N, most_threads)),
           0, args);
  });
}

std::size_t layernorm_backward_scratch(const LayernormBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(row_blocks(args.rows) * 2 * args.cols) * sizeof(float);
}

void layernorm_backward(const Exec& exec, const LayernormBackwardArgs& args) {
  const std::int64_t cols = args.cols;
  const std::int64_t blocks = row_blocks(args.rows);
  const std::size_t bytes = static_cast<std::size_t>(2 * cols) * sizeof(float);
  const bool in_shared = bytes <= shared_limit;
  const bool packs = packable(args.dtype, cols, {args.dy, args.x, args.gamma, args.dsum, args.dx});
  with_pack(args.dtype, packs, [&]<class T, int N>(Packed<T, N>) {
    if (blocks == 0) return;
    launch(exec, backward_kernel<T, N>, dim3(static_cast<unsigned>(blocks)),
           dim3(block_threads(cols / N, most_threads)), in_shared ? bytes : 0, args, in_shared);
  });
  const auto* partial = static_cast<const float*>(args.scratch);
  sum_blocks(exec, partial, blocks, 2 * cols, args.dgamma, cols, args.accumulate_dgamma != 0);
  sum_blocks(exec, partial + cols, blocks, 2 * cols, args.dbeta, cols, args.accumulate_dbeta != 0);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
