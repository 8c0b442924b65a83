#pragma once

// How an update rule walks the flat space on a device, as kernels/cpu/update_walk.hpp does on a CPU. A new optimizer is
// a rule for one element and a call of run_update. For .cu files only.
//
// A rule is a struct that is passed to the kernel by value:
//
//   struct Rule {
//     static constexpr int moments = 2;  // fp32 buffers of its own, at a tile's shard index
//     float* moment[moments];
//     using Scalars = ...;               // what is the same for all elements of a group, in float
//     Scalars scalars(const GroupStep::Rounded&, const StepState&, float grad_factor) const;
//     static bool uses_moments(const Scalars&);  // where not, a group's moments are neither read nor written
//     static void element(float& p, float (&moment)[moments], float g, const Scalars&);
//   };
//
// One pass. Bytes a parameter: 4 of every gradient source (2 in 16 bits) and 8 of the master and of each moment that is
// used, plus 2 for a 16-bit copy.
#include "kernels/decide/step.hpp"
#include "kernels/device/gradient.hpp"

namespace lockstep::kernels::LOCKSTEP_KERNEL_NS {
namespace {

constexpr unsigned walk_threads = 256;
constexpr unsigned walk_blocks = 4;  ///< of a multiprocessor; leaves a thread 64 registers
constexpr int walk_vector = 4;       ///< elements of a thread: 16 bytes of each fp32 buffer

/// Tiles are walked in pieces, which the blocks of a grid that stays resident take in turn: thousands of small pieces
/// divide evenly over any number of multiprocessors, tiles would not.
constexpr std::uint32_t piece_elements = walk_threads * walk_vector;
constexpr std::uint32_t tile_pieces = tile_elements / piece_elements;
static_assert(tile_elements % piece_elements == 0);

/// What every rule's arguments have in common.
struct UpdateWalk {
  float* master;
  Extent master_extent;
  Extent param16_extent;
  DType param16_dtype;
  void* param16;
  GradSources grad;
  const Tile* tiles;
  std::uint32_t tile_count;
  const GroupStep* groups;
  const StepState* state;
};
template <class Args>
UpdateWalk walk_of(const Args& args) {
  return {args.master, args.master_extent, args.param16_extent, args.param16_dtype, args.param16,
          args.grad,   args.tiles,         args.tile_count,     args.groups,        args.state};
}

template <class Rule>
using Moments = float[Rule::moments];

/// Elements [first, first + walk_vector) of a tile, which has all of them, on multiples of walk_vector.
template <class Rule, class G, int sources>
__device__ __forceinline__ void update_vector(const UpdateWalk& walk, const Rule& rule, const Tile& tile,
                                              std::uint32_t first, const typename Rule::Scalars& scalars) {
  constexpr int N = walk_vector;
  const std::size_t shard = tile.shard_begin + first;
  float* const master = walk.master + begin_in(tile, walk.master_extent) + first;
  // Every load before the first store.
  Pack<float, N> p = load_once<N>(master), moment[Rule::moments] = {};
  const Values<N> g = gradient_pack<N, sources, G>(walk.grad, begin_in(tile, walk.grad.extent) + first);
  const bool uses_moments = Rule::uses_moments(scalars);
  if (uses_moments)
    for (int m = 0; m < Rule::moments; ++m) moment[m] = load_once<N>(rule.moment[m] + shard);
  for (int j = 0; j < N; ++j) {
    Moments<Rule> own;
    for (int m = 0; m < Rule::moments; ++m) own[m] = moment[m].v[j];
    Rule::element(p.v[j], own, g.v[j], scalars);
    for (int m = 0; m < Rule::moments; ++m) moment[m].v[j] = own[m];
  }
  if (uses_moments)
    for (int m = 0; m < Rule::moments; ++m) store_once(rule.moment[m] + shard, moment[m]);
  // The next forward pass reads the 16-bit copy, or the master where there is none.
  if (walk.param16 == nullptr) return store(master, p);
  store_once(master, p);
  const std::size_t copy = begin_in(tile, walk.param16_extent) + first;
  Values<N> values;
  for (int j = 0; j < N; ++j) values.v[j] = p.v[j];
  if (walk.param16_dtype == DType::bf16)
    store(static_cast<bf16*>(walk.param16) + copy, narrow<bf16>(values));
  else
    store(static_cast<f16*>(walk.param16) + copy, narrow<f16>(values));
}

/// Element k of a tile: a parameter's tail, or a shard that does not start on a vector.
template <class Rule, class G, int sources>
__device__ __forceinline__ void update_one(const UpdateWalk& walk, const Rule& rule, const Tile& tile, std::uint32_t k,
                                           const typename Rule::Scalars& scalars) {
  float& p = walk.master[begin_in(tile, walk.master_extent) + k];
  const bool uses_moments = Rule::uses_moments(scalars);
  Moments<Rule> moment = {};
  if (uses_moments)
    for (int m = 0; m < Rule::moments; ++m) moment[m] = rule.moment[m][tile.shard_begin + k];
  const std::size_t grad = begin_in(tile, walk.grad.extent) + k;
  Rule::element(p, moment, gradient_pack<1, sources, G>(walk.grad, grad).v[0], scalars);
  if (uses_moments)
    for (int m = 0; m < Rule::moments; ++m) rule.moment[m][tile.shard_begin + k] = moment[m];
  if (walk.param16 != nullptr)
    store_element(walk.param16, walk.param16_dtype, begin_in(tile, walk.param16_extent) + k, p);
}

template <class Rule, class G, int sources>
__global__ void __launch_bounds__(walk_threads, resident_blocks(walk_threads, walk_blocks))
    update_kernel(UpdateWalk walk, Rule rule) {
  if (walk.state->skip != 0 || walk.state->halt != Halt::none) return;
  const auto grad_factor = static_cast<float>(walk.state->grad_factor);
  const std::uint32_t pieces = walk.tile_count * tile_pieces;
  std::uint32_t piece = blockIdx.x;
  Tile next = walk.tiles[piece / tile_pieces];
  while (piece < pieces) {
    const Tile tile = next;
    const std::uint32_t first = piece % tile_pieces * piece_elements + threadIdx.x * walk_vector;
    piece += gridDim.x;
    if (piece < pieces) next = walk.tiles[piece / tile_pieces];  // on its way while this piece is
    if (first >= tile.count) continue;
    const typename Rule::Scalars scalars = rule.scalars(walk.groups[tile.group].rounded, *walk.state, grad_factor);
    if ((tile.begin | tile.shard_begin) % walk_vector == 0 && first + walk_vector <= tile.count) {
      update_vector<Rule, G, sources>(walk, rule, tile, first, scalars);
    } else {
      const std::uint32_t end = first + walk_vector < tile.count ? first + walk_vector : tile.count;
      for (std::uint32_t k = first; k < end; ++k) update_one<Rule, G, sources>(walk, rule, tile, k, scalars);
    }
  }
}

/// One update of every tile of `args`, which are AdamArgs or have the same members for what they share.
template <class Args, class Rule>
void run_update(const Exec& exec, const Args& args, const Rule& rule) {
  const unsigned blocks = persistent_blocks(std::size_t{args.tile_count} * tile_pieces, walk_blocks);
  with_sources(args.grad, [&]<class G, int n>(G*, Sources<n>) {
    launch(exec, update_kernel<Rule, G, n>, dim3(blocks), dim3(walk_threads), 0, walk_of(args), rule);
  });
}

}  // namespace
}  // namespace lockstep::kernels::LOCKSTEP_KERNEL_NS
