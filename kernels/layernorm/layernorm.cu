// The forward pass. Bytes an element, one pass: reads x, writes y; with a residual reads it too and writes the sum.
//
// A row of whole packs up to 2,048 columns is a warp's, in its registers. What is left (wider, odd lengths or
// addresses) a block walks three times, of which the caches serve two.
#include "kernels/declare.hpp"
#include "kernels/layernorm/row_part.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

/// A warp a row of at most 32 N P columns, in registers between the passes.
template <class T, int N, int P>
__global__ void __launch_bounds__(row_warps * 32, sizeof(T) * N * P < 64 ? 8
                                                  : N * P <= 32          ? 5
                                                                : 3) forward_rows_kernel(LayernormForwardArgs args) {
  const int cols = static_cast<int>(args.cols), lane = static_cast<int>(threadIdx.x % 32);
  const auto width = static_cast<float>(cols);
  const std::int64_t stride = std::int64_t{gridDim.x} * row_warps;
  for (std::int64_t r = std::int64_t{blockIdx.x} * row_warps + threadIdx.x / 32; r < args.rows; r += stride) {
    const std::int64_t row = r * args.cols;
    RowPart<T, N, P> x;
    x.read(static_cast<const T*>(args.x) + row, cols, lane, 32);
    float sum = 0.0F;
    if (args.residual != nullptr) {
      RowPart<T, N, P> residual;
      residual.read(static_cast<const T*>(args.residual) + row, cols, lane, 32);
      for_packs<N, P>(cols, lane, 32, [&](int p, int c) {
        x.pack[p] = narrow<T>(widen(x.pack[p]) + widen(residual.pack[p]));
        store(static_cast<T*>(args.sum) + row + c, x.pack[p]);
      });
    }
    for_packs<N, P>(cols, lane, 32, [&](int p, int) {
      const auto values = widen(x.pack[p]);
      for (int k = 0; k < N; ++k) sum += values.v[k];
    });
    x.stay_packed();
    const float mean = warp_reduce<Sum>(sum) / width;
    float squares = 0.0F;
    for_packs<N, P>(cols, lane, 32, [&](int p, int) {
      const auto values = widen(x.pack[p]);
      for (int k = 0; k < N; ++k) squares += (values.v[k] - mean) * (values.v[k] - mean);
    });
    x.stay_packed();
    const float rstd = 1.0F / sqrtf(warp_reduce<Sum>(squares) / width + args.eps);
    for_packs<N, P>(cols, lane, 32, [&](int p, int c) {
      auto values = widen(x.pack[p]);
      const auto gamma = load_pack<N>(static_cast<const T*>(args.gamma) + c);
      const auto beta = load_pack<N>(static_cast<const T*>(args.beta) + c);
      for (int k = 0; k < N; ++k) values.v[k] = (values.v[k] - mean) * rstd * gamma.v[k] + beta.v[k];
      store_pack<N>(static_cast<T*>(args.y) + row + c, values);
    });
    if (lane == 0) {
      args.mean[r] = mean;
      args.rstd[r] = rstd;
    }
  }
}

/// One block a row; a thread meets the same packs in all three passes.
template <class T, int N>
__global__ void __launch_bounds__(wide_threads) forward_wide_kernel(LayernormForwardArgs args) {
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

}  // namespace

void layernorm_forward(const Exec& exec, const LayernormForwardArgs& args) {
  const bool packs = packable(args.dtype, args.cols, {args.x, args.residual, args.sum, args.gamma, args.beta, args.y});
  with_pack(args.dtype, packs, [&]<class T, int N>(Packed<T, N>) {
    if constexpr (N > 1)
      if (with_parts<N, 16, 24, 32, 64>(args.cols, 32, [&]<int P>(Parts<P>) {
            const auto blocks = static_cast<std::size_t>((args.rows + row_warps - 1) / row_warps);
            launch(exec, forward_rows_kernel<T, N, P>, dim3(persistent_blocks(blocks, 8)), dim3(row_warps * 32), 0,
                   args);
          }))
        return;
    launch(exec, forward_wide_kernel<T, N>, dim3(blocks_for(args.rows, 1)),
           dim3(block_threads((args.cols + N - 1) / N, wide_threads)), 0, args);
  });
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
