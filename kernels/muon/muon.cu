// Bytes: direction 16 an element (gradient 4, moment 4 + 4, direction 4), normalization 8, the polynomial 12 of an n x
// n matrix each, the update 12 (master 4 + 4, direction 4), 14 with a 16-bit copy. The products between them weigh
// more.
#include "kernels/declare.hpp"
#include "kernels/device/gradient.hpp"
#include "kernels/muon/muon_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned muon_threads = muon_lanes;

__device__ __forceinline__ bool is_idle(const StepState& state) { return state.skip != 0 || state.halt != Halt::none; }

/// add_muon_lanes over a block, whose thread t has lane t; the result is every thread's.
__device__ __forceinline__ double add_lanes_of_block(double value, double* shared) {
  const unsigned t = threadIdx.x;
  shared[t] = value;
  __syncthreads();
  for (unsigned half = muon_lanes / 2; half > 0; half /= 2) {
    if (t < half) shared[t] = shared[t] + shared[t + half];
    __syncthreads();
  }
  return shared[0];
}

/// One block a tile.
template <class G, int sources>
__global__ void __launch_bounds__(muon_threads) direction_kernel(MuonDirectionArgs args) {
  LOCKSTEP_SHARED(double, shared, [muon_lanes]);
  if (is_idle(*args.state)) return;
  const Tile tile = args.tiles[blockIdx.x];
  const MuonScalars<float> scalars =
      muon_scalars(args.groups[tile.group].rounded, static_cast<float>(args.state->grad_factor), args.nesterov != 0);
  float* const momentum = args.momentum + tile.shard_begin;
  float* const direction = args.direction + (tile.begin - args.tiles[0].begin);
  const std::size_t grad = begin_in(tile, args.grad.extent);
  double sum = 0;
#pragma unroll 4
  for (std::uint32_t k = threadIdx.x; k < tile.count; k += muon_lanes) {
    const float u =
        muon_direction_element(momentum[k], gradient_pack<1, sources, G>(args.grad, grad + k).v[0], scalars);
    direction[k] = u;
    sum = sum + static_cast<double>(u) * static_cast<double>(u);
  }
  sum = add_lanes_of_block(sum, shared);
  if (threadIdx.x == 0) args.squares[blockIdx.x] = sum;
}

constexpr std::uint32_t piece_elements = 4 * muon_threads;

/// One block a piece; each adds the tiles' sums, which are few.
__global__ void __launch_bounds__(muon_threads) normalize_kernel(MuonNormalizeArgs args) {
  LOCKSTEP_SHARED(double, shared, [muon_lanes]);
  double sum = 0;
  for (std::uint32_t t = threadIdx.x; t < args.tile_count; t += muon_lanes) sum = sum + args.squares[t];
  const float norm = muon_norm(add_lanes_of_block(sum, shared), args.eps);
  const std::size_t begin = std::size_t{blockIdx.x} * piece_elements;
  for (std::size_t i = begin + threadIdx.x; i < begin + piece_elements && i < args.count; i += muon_threads)
    args.x[i] = args.x[i] / norm;
}

/// One block a row.
__global__ void __launch_bounds__(muon_threads) polynomial_kernel(MuonPolynomialArgs args) {
  const std::int64_t i = blockIdx.x;
  float* const square = args.square + i * args.n;
  const float* const gram = args.gram + i * args.n;
  for (std::int64_t j = threadIdx.x; j < args.n; j += muon_threads)
    square[j] = muon_polynomial_element(square[j], gram[j], i == j, args.a, args.b, args.c);
}

constexpr std::uint32_t tile_pieces = tile_elements / piece_elements;

/// One block a piece of a tile.
__global__ void __launch_bounds__(muon_threads) apply_kernel(MuonApplyArgs args) {
  if (is_idle(*args.state)) return;
  const Tile tile = args.tiles[blockIdx.x / tile_pieces];
  const std::uint32_t begin = blockIdx.x % tile_pieces * piece_elements;
  const MuonScalars<float> scalars =
      muon_scalars(args.groups[tile.group].rounded, static_cast<float>(args.state->grad_factor), true);
  float* const master = args.master + begin_in(tile, args.master_extent);
  const float* const direction = args.direction + (tile.begin - args.tiles[0].begin);
  const std::size_t copy = begin_in(tile, args.param16_extent);
  for (std::uint32_t k = begin + threadIdx.x; k < begin + piece_elements && k < tile.count; k += muon_threads) {
    float p = master[k];
    muon_apply_element(p, direction[k], args.ratio, scalars);
    master[k] = p;
    if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, copy + k, p);
  }
}

}  // namespace

void muon_direction(const Exec& exec, const MuonDirectionArgs& args) {
  with_sources(args.grad, [&]<class G, int n>(G*, Sources<n>) {
    launch(exec, direction_kernel<G, n>, dim3(args.tile_count), dim3(muon_threads), 0, args);
  });
}

void muon_normalize(const Exec& exec, const MuonNormalizeArgs& args) {
  const auto pieces = static_cast<unsigned>((args.count + piece_elements - 1) / piece_elements);
  launch(exec, normalize_kernel, dim3(pieces), dim3(muon_threads), 0, args);
}

void muon_polynomial(const Exec& exec, const MuonPolynomialArgs& args) {
  launch(exec, polynomial_kernel, dim3(static_cast<unsigned>(args.n)), dim3(muon_threads), 0, args);
}

void muon_apply(const Exec& exec, const MuonApplyArgs& args) {
  launch(exec, apply_kernel, dim3(args.tile_count * tile_pieces), dim3(muon_threads), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
