#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// As AdamArgs, with one moment.
struct LionArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  float* m = nullptr;  ///< at a tile's shard index
  void* param16 = nullptr;
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};
  const Tile* tiles = nullptr;
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;  ///< this step's lr, betas and decay; without bias correction
  const StepState* state = nullptr;
};

namespace kernels {
/// One Lion update of every tile, in place, in one pass over memory.
///
///   g <- grad_factor * (sum of sources);   c <- beta1 m + (1 - beta1) g
///   p <- p - lr (sign(c) + weight_decay p);   m <- beta2 m + (1 - beta2) g;   param16 <- round(p)
///
/// sign(0) = 0. float32 arithmetic without contraction: bit-equal on every implementation.
/// Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023.
void lion(const Exec& exec, const LionArgs& args);
}  // namespace kernels

}  // namespace lockstep
