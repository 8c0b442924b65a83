// The backward pass. Bytes an element, one pass: reads dy and x, with a gradient from elsewhere that too, writes dx.
// Partial sums of dgamma and dbeta: 16 bytes for each of the row blocks and columns, at most 528 blocks.
//
// A row of whole packs up to 1,024 columns is a warp's, up to 8,192 a block's, in their registers. What is left (wider,
// odd lengths or addresses) a block walks twice, of which the caches serve one.
#include "kernels/declare.hpp"
#include "kernels/device/column_sum.hpp"
#include "kernels/layernorm/row_part.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned block_row_threads = 512;  ///< most of a block that has a row in its registers
constexpr int block_row_floats = 16;         ///< of each of these

/// Row blocks of the backward pass and so partial sums, a function of the rows alone: four blocks on each of 132
/// multiprocessors at most, and each of 16 rows at least.
constexpr std::int64_t row_blocks(std::int64_t rows) {
  const std::int64_t wanted = (rows + 15) / 16;
  return wanted < 528 ? wanted : 528;
}

/// The row's part of the backward pass that is one thread's: sums of g = gamma dy and of g times the normalised x, what
/// the row adds to dgamma and dbeta, and then dx.
template <class T, int N, int P>
struct BackwardPart {
  RowPart<T, N, P> dy, x;
  float mean, rstd;

  __device__ __forceinline__ void read(const LayernormBackwardArgs& args, std::int64_t r, int lane, int lanes) {
    const int cols = static_cast<int>(args.cols);
    dy.read(static_cast<const T*>(args.dy) + r * args.cols, cols, lane, lanes);
    x.read(static_cast<const T*>(args.x) + r * args.cols, cols, lane, lanes);
    mean = args.mean[r];
    rstd = args.rstd[r];
  }
  __device__ __forceinline__ void add(const LayernormBackwardArgs& args, int lane, int lanes, float& sum_g,
                                      float& sum_gx, Values<N> (&dgamma)[P], Values<N> (&dbeta)[P]) {
    for_packs<N, P>(static_cast<int>(args.cols), lane, lanes, [&](int p, int c) {
      const auto d = widen(dy.pack[p]), s = widen(x.pack[p]);
      const auto scale = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      for (int k = 0; k < N; ++k) {
        const float dx_part = d.v[k] * ((s.v[k] - mean) * rstd);
        dgamma[p].v[k] += dx_part;
        dbeta[p].v[k] += d.v[k];
        sum_g += d.v[k] * scale.v[k];
        sum_gx += dx_part * scale.v[k];
      }
    });
    dy.stay_packed();
    x.stay_packed();
  }
  __device__ __forceinline__ void write(const LayernormBackwardArgs& args, std::int64_t r, int lane, int lanes,
                                        float mean_g, float mean_gx) const {
    const std::int64_t row = r * args.cols;
    for_packs<N, P>(static_cast<int>(args.cols), lane, lanes, [&](int p, int c) {
      auto d = widen(dy.pack[p]);
      const auto s = widen(x.pack[p]), scale = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      for (int k = 0; k < N; ++k) d.v[k] = (d.v[k] * scale.v[k] - mean_g - (s.v[k] - mean) * rstd * mean_gx) * rstd;
      if (args.dsum != nullptr) d = d + load_pack<N>(static_cast<const T*>(args.dsum) + row + c);
      store_pack<N>(static_cast<T*>(args.dx) + row + c, d);
    });
  }
};

template <int N, int P>
__device__ __forceinline__ void store_partial(float* partial, int cols, int lane, int lanes,
                                              const Values<N> (&dgamma)[P], const Values<N> (&dbeta)[P]) {
  for_packs<N, P>(cols, lane, lanes, [&](int p, int c) {
    store_pack<N>(partial + c, dgamma[p]);
    store_pack<N>(partial + cols + c, dbeta[p]);
  });
}

/// A warp a row of at most 32 N P columns; each keeps the sums of its rows in registers, the block adds its warps in
/// order.
template <class T, int N, int P>
__global__ void __launch_bounds__(row_warps * 32, sizeof(T) * N * P < 64 ? 4 : 3)
    backward_rows_kernel(LayernormBackwardArgs args) {
  LOCKSTEP_SHARED(float, sums, [2][32 * N * P]);
  const int cols = static_cast<int>(args.cols), lane = static_cast<int>(threadIdx.x % 32);
  const auto warp = threadIdx.x / 32;
  const auto width = static_cast<float>(cols);
  Values<N> dgamma[P] = {}, dbeta[P] = {};
  const std::int64_t last = first_row(args.rows, blockIdx.x + 1, gridDim.x);
  for (std::int64_t r = first_row(args.rows, blockIdx.x, gridDim.x) + warp; r < last; r += row_warps) {
    BackwardPart<T, N, P> part;
    part.read(args, r, lane, 32);
    float sum_g = 0.0F, sum_gx = 0.0F;
    part.add(args, lane, 32, sum_g, sum_gx, dgamma, dbeta);
    const float mean_g = warp_reduce<Sum>(sum_g) / width, mean_gx = warp_reduce<Sum>(sum_gx) / width;
    part.write(args, r, lane, 32, mean_g, mean_gx);
  }
  for (unsigned turn = 0; turn < row_warps; ++turn) {
    if (turn > 0) __syncthreads();
    if (turn != warp) continue;
    for_packs<N, P>(cols, lane, 32, [&](int p, int c) {
      for (int k = 0; k < N; ++k) {
        float &gamma_sum = sums[0][c + k], &beta_sum = sums[1][c + k];
        gamma_sum = turn == 0 ? dgamma[p].v[k] : gamma_sum + dgamma[p].v[k];
        beta_sum = turn == 0 ? dbeta[p].v[k] : beta_sum + dbeta[p].v[k];
      }
    });
  }
  __syncthreads();
  float* const partial = static_cast<float*>(args.scratch) + blockIdx.x * 2 * args.cols;
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += static_cast<int>(blockDim.x)) {
    partial[c] = sums[0][c];
    partial[cols + c] = sums[1][c];
  }
}

/// A block a row of at most blockDim.x N P columns.
template <class T, int N, int P>
__global__ void __launch_bounds__(block_row_threads, 1) backward_block_kernel(LayernormBackwardArgs args) {
  LOCKSTEP_SHARED(float, shared, [32]);
  const int cols = static_cast<int>(args.cols), lane = static_cast<int>(threadIdx.x);
  const int lanes = static_cast<int>(blockDim.x);
  const auto width = static_cast<float>(cols);
  Values<N> dgamma[P] = {}, dbeta[P] = {};
  const std::int64_t last = first_row(args.rows, blockIdx.x + 1, gridDim.x);
  for (std::int64_t r = first_row(args.rows, blockIdx.x, gridDim.x); r < last; ++r) {
    BackwardPart<T, N, P> part;
    part.read(args, r, lane, lanes);
    float sum_g = 0.0F, sum_gx = 0.0F;
    part.add(args, lane, lanes, sum_g, sum_gx, dgamma, dbeta);
    const float mean_g = block_reduce<Sum>(sum_g, 0.0F, shared) / width;
    const float mean_gx = block_reduce<Sum>(sum_gx, 0.0F, shared) / width;
    part.write(args, r, lane, lanes, mean_g, mean_gx);
  }
  store_partial<N, P>(static_cast<float*>(args.scratch) + blockIdx.x * 2 * args.cols, cols, lane, lanes, dgamma, dbeta);
}

/// Any row: the sums of a thread's columns grow in the partial sums themselves.
template <class T, int N>
__global__ void __launch_bounds__(wide_threads, 4) backward_wide_kernel(LayernormBackwardArgs args) {
  LOCKSTEP_SHARED(float, shared, [32]);
  const std::int64_t cols = args.cols;
  float* const dgamma = static_cast<float*>(args.scratch) + blockIdx.x * 2 * cols;
  float* const dbeta = dgamma + cols;
  const std::int64_t start = std::int64_t{threadIdx.x} * N, step = std::int64_t{blockDim.x} * N;
  const auto width = static_cast<float>(cols);
  for (std::int64_t c = start; c < cols; c += step)
    for (int k = 0; k < N; ++k) dgamma[c + k] = dbeta[c + k] = 0.0F;
  const std::int64_t last = first_row(args.rows, blockIdx.x + 1, gridDim.x);
  for (std::int64_t r = first_row(args.rows, blockIdx.x, gridDim.x); r < last; ++r) {
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
}

}  // namespace

std::size_t layernorm_backward_scratch(const LayernormBackwardArgs& args) noexcept {
  return static_cast<std::size_t>(row_blocks(args.rows) * 2 * args.cols) * sizeof(float);
}

void layernorm_backward(const Exec& exec, const LayernormBackwardArgs& args) {
  const std::int64_t cols = args.cols, blocks = row_blocks(args.rows);
  const bool packs = packable(args.dtype, cols, {args.dy, args.x, args.gamma, args.dsum, args.dx, args.scratch});
  with_pack(args.dtype, packs, [&]<class T, int N>(Packed<T, N>) {
    if (blocks == 0) return;
    const dim3 grid(static_cast<unsigned>(blocks));
    if constexpr (N > 1) {
      if (with_parts<N, 16, 24, 32>(cols, 32, [&]<int P>(Parts<P>) {
            launch(exec, backward_rows_kernel<T, N, P>, grid, dim3(row_warps * 32), 0, args);
          }))
        return;
      if (cols <= block_row_floats * block_row_threads) {
        const std::int64_t threads = (cols + block_row_floats - 1) / block_row_floats;
        launch(exec, backward_block_kernel<T, N, block_row_floats / N>, grid,
               dim3(block_threads(threads, block_row_threads)), 0, args);
        return;
      }
    }
    launch(exec, backward_wide_kernel<T, N>, grid, dim3(block_threads((cols + N - 1) / N, wide_threads)), 0, args);
  });
  sum_blocks(exec, args.scratch, blocks,
             {{args.dgamma, args.dbeta}, {args.accumulate_dgamma != 0, args.accumulate_dbeta != 0}, cols, 2});
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
