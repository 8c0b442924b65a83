#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// As AdamArgs, with one moment.
struct AdagradArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  float* sum = nullptr;  ///< of squared gradients, at a tile's shard index
  void* param16 = nullptr;
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};
  const Tile* tiles = nullptr;
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;
  const StepState* state = nullptr;  ///< applied == 1 marks the first update, which begins the sum with `initial`
  float eps = 1e-10F;
  float initial = 0;
};

namespace kernels {
/// One Adagrad update of every tile, in place, in one pass over memory, with torch's meaning:
///
///   g <- grad_factor * (sum of sources) + weight_decay p;   sum <- (initial on the first update, else sum) + g^2
///   p <- p - lr g / (sqrt(sum) + eps);   param16 <- round(p)
///
/// float32 arithmetic without contraction: bit-equal on every implementation.
/// Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR
/// 12, 2011, in torch's formulation.
void adagrad(const Exec& exec, const AdagradArgs& args);
}  // namespace kernels

}  // namespace lockstep
