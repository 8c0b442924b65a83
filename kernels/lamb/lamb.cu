// Bytes a parameter: first pass gradient 4, master 4, moments 2 x (4 + 4); second pass master 4 + 4, moments 2 x 4 =
// 40; 42 with a 16-bit copy, 2 less with a 16-bit gradient.
#include "kernels/declare.hpp"
#include "kernels/device/gradient.hpp"
#include "kernels/lamb/lamb_rule.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr int vector = 4;  ///< elements of a thread: 16 bytes of each fp32 buffer
constexpr unsigned sum_threads = lamb_lanes / vector;
constexpr unsigned sum_blocks = 16;  ///< of a multiprocessor; leaves a thread 64 registers
static_assert(sum_threads == 64, "two warps: the second's lanes are added to the first's");

__device__ __forceinline__ bool is_idle(const StepState& state) { return state.skip != 0 || state.halt != Halt::none; }
__device__ __forceinline__ LambScalars<float> scalars_of(const LambArgs& args, const Tile& tile) {
  return lamb_scalars(args.groups[tile.group].rounded, static_cast<float>(args.state->grad_factor), args.eps);
}
__device__ __forceinline__ void add_square(double& sum, float value) {
  sum = sum + static_cast<double>(value) * static_cast<double>(value);
}

/// add_lanes over a block, whose thread t has the lanes [vector t, vector (t + 1)); the result is thread 0's.
__device__ __forceinline__ double add_lanes_of_block(double (&lane)[vector], double (*shared)[vector]) {
  const unsigned t = threadIdx.x;
  __syncthreads();  // what was here before has been read
  if (t >= 32)
    for (int j = 0; j < vector; ++j) shared[t - 32][j] = lane[j];
  __syncthreads();
  if (t < 32) {
    for (int j = 0; j < vector; ++j) lane[j] = lane[j] + shared[t][j];
    for (int half = 16; half > 0; half /= 2)
      for (int j = 0; j < vector; ++j) lane[j] = lane[j] + __shfl_down_sync(0xffffffffU, lane[j], half);
  }
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/// One block a tile: moments, and the tile's squares.
template <class G, int sources>
__global__ void __launch_bounds__(sum_threads, resident_blocks(sum_threads, sum_blocks))
    moments_kernel(LambArgs args, bool packs) {
  LOCKSTEP_SHARED(double, shared, [32][vector]);
  if (is_idle(*args.state)) return;
  const Tile tile = args.tiles[blockIdx.x];
  const LambScalars<float> scalars = scalars_of(args, tile);
  const float* const master = args.master + begin_in(tile, args.master_extent);
  const std::size_t grad = begin_in(tile, args.grad.extent);
  float *const m_of = args.m + tile.shard_begin, *const v_of = args.v + tile.shard_begin;
  double p2[vector] = {}, u2[vector] = {};
  const bool whole = packs && (tile.begin | tile.shard_begin) % vector == 0;
  for (std::uint32_t k = threadIdx.x * vector; k < tile.count; k += lamb_lanes) {
    if (whole && k + vector <= tile.count) {
      const Pack<float, vector> p = load<vector>(master + k);
      Pack<float, vector> m = load<vector>(m_of + k), v = load<vector>(v_of + k);
      const auto g = gradient_pack<vector, sources, G>(args.grad, grad + k);
      for (int j = 0; j < vector; ++j) {
        add_square(u2[j], lamb_moments(p.v[j], m.v[j], v.v[j], g.v[j], scalars));
        add_square(p2[j], p.v[j]);
      }
      store(m_of + k, m);
      store(v_of + k, v);
    } else {
      for (std::uint32_t j = 0; j < vector && k + j < tile.count; ++j) {
        const float p = master[k + j], g = gradient_pack<1, sources, G>(args.grad, grad + k + j).v[0];
        add_square(u2[j], lamb_moments(p, m_of[k + j], v_of[k + j], g, scalars));
        add_square(p2[j], p);
      }
    }
  }
  const double p2_sum = add_lanes_of_block(p2, shared), u2_sum = add_lanes_of_block(u2, shared);
  if (threadIdx.x == 0) args.squares[blockIdx.x] = {p2_sum, u2_sum};
}

/// One block a tensor: the step of all its tiles.
__global__ void __launch_bounds__(sum_threads) step_kernel(LambArgs args) {
  LOCKSTEP_SHARED(double, shared, [32][vector]);
  LOCKSTEP_SHARED(float, result, [1]);
  if (is_idle(*args.state)) return;
  const TileRun run = args.tensors[blockIdx.x];
  double p2[vector] = {}, u2[vector] = {};
  for (std::uint32_t k = threadIdx.x * vector; k < run.count; k += lamb_lanes)
    for (std::uint32_t j = 0; j < vector && k + j < run.count; ++j) {
      p2[j] = p2[j] + args.squares[run.first + k + j].p2;
      u2[j] = u2[j] + args.squares[run.first + k + j].u2;
    }
  const double p2_sum = add_lanes_of_block(p2, shared), u2_sum = add_lanes_of_block(u2, shared);
  if (threadIdx.x == 0)
    result[0] = static_cast<float>(
        lamb_step(p2_sum, u2_sum, args.groups[args.tiles[run.first].group], args.min_coeff, args.max_coeff));
  __syncthreads();
  for (std::uint32_t k = threadIdx.x; k < run.count; k += sum_threads) args.steps[run.first + k] = result[0];
}

constexpr unsigned apply_threads = 256;
constexpr std::uint32_t piece_elements = apply_threads * vector;
constexpr std::uint32_t tile_pieces = tile_elements / piece_elements;

/// One block a piece of a tile.
__global__ void __launch_bounds__(apply_threads) apply_kernel(LambArgs args) {
  if (is_idle(*args.state)) return;
  const std::uint32_t t = blockIdx.x / tile_pieces;
  const std::uint32_t first = blockIdx.x % tile_pieces * piece_elements + threadIdx.x * vector;
  const Tile tile = args.tiles[t];
  if (first >= tile.count) return;
  const LambScalars<float> scalars = scalars_of(args, tile);
  const float step = args.steps[t];
  float* const master = args.master + begin_in(tile, args.master_extent) + first;
  const float *const m_of = args.m + tile.shard_begin + first, *const v_of = args.v + tile.shard_begin + first;
  const std::size_t copy = begin_in(tile, args.param16_extent) + first;
  if ((tile.begin | tile.shard_begin) % vector != 0 || first + vector > tile.count) {
    for (std::uint32_t j = 0; j < vector && first + j < tile.count; ++j) {
      lamb_apply(master[j], m_of[j], v_of[j], step, scalars);
      if (args.param16 != nullptr) store_element(args.param16, args.param16_dtype, copy + j, master[j]);
    }
    return;
  }
  Pack<float, vector> p = load<vector>(master);
  const Pack<float, vector> m = load_once<vector>(m_of), v = load_once<vector>(v_of);
  Values<vector> values;
  for (int j = 0; j < vector; ++j) {
    lamb_apply(p.v[j], m.v[j], v.v[j], step, scalars);
    values.v[j] = p.v[j];
  }
  store(master, p);
  if (args.param16 == nullptr) return;
  if (args.param16_dtype == DType::bf16)
    store(static_cast<bf16*>(args.param16) + copy, narrow<bf16>(values));
  else
    store(static_cast<f16*>(args.param16) + copy, narrow<f16>(values));
}

}  // namespace

void lamb(const Exec& exec, const LambArgs& args) {
  with_sources(args.grad, [&]<class G, int n>(G*, Sources<n>) {
    launch(exec, moments_kernel<G, n>, dim3(args.tile_count), dim3(sum_threads), 0, args, is_aligned(args.grad));
  });
  launch(exec, step_kernel, dim3(args.tensor_count), dim3(sum_threads), 0, args);
  launch(exec, apply_kernel, dim3(args.tile_count * tile_pieces), dim3(apply_threads), 0, args);
}

}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
