#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// All pointers are the device's. master, m, v, param16 and the gradient's sources do not overlap and start on 64-byte
/// boundaries, and so does every tile except a parameter's tail.
///
/// Moments belong to one rank each: they lie at a tile's shard index always. The others say by their extent at which of
/// its two indices they lie: the master is a shard, unless the passes read it (fp32 training below stage 3); the 16-bit
/// copy and the gradient are whole, unless their stage shards them. Without shards both indices are equal.
struct AdamArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  float* m = nullptr;
  float* v = nullptr;
  void* param16 = nullptr;  ///< rounded copy of master for the forward pass; may be null
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};  ///< scaled gradient sum; read only
  const Tile* tiles = nullptr;
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;  ///< this step's lr, betas, decay and corrections
  const StepState* state = nullptr;   ///< grad_factor, and whether to skip
  float eps = 1e-8F;
  std::int32_t decoupled = 1;  ///< 1: AdamW's decay; 0: decay added to the gradient (L2)
};

namespace kernels {
/// One Adam or AdamW update of every tile, in place, in one pass over memory.
///
///   g <- grad_factor * (sum of sources);          L2 only: g <- g + weight_decay p
///   m <- beta1 m + (1 - beta1) g;                 v <- beta2 v + (1 - beta2) g^2
///   p <- p - lr (m / c1 / (sqrt(v / c2) + eps) [+ weight_decay p if decoupled])
///   param16 <- round(p)
///
/// float32 arithmetic without contraction, scalars derived in double: bit-equal on every implementation.
/// Sources: Kingma & Ba, "Adam", ICLR 2015; Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
void adam(const Exec& exec, const AdamArgs& args);
}  // namespace kernels

}  // namespace lockstep
