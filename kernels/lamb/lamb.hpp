#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"
#include "kernels/lamb/lamb_rule.hpp"

namespace lockstep {

/// As AdamArgs; tensors are whole: every tile belongs to one of `tensors`.
struct LambArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  float* m = nullptr;
  float* v = nullptr;
  void* param16 = nullptr;
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};
  const Tile* tiles = nullptr;
  std::uint32_t tile_count = 0;
  const TileRun* tensors = nullptr;  ///< one a parameter, whose tiles are all of one group
  std::uint32_t tensor_count = 0;
  LambSquares* squares = nullptr;  ///< scratch [tile_count]
  float* steps = nullptr;          ///< scratch [tile_count]
  const GroupStep* groups = nullptr;
  const StepState* state = nullptr;
  float eps = 1e-8F;
  double min_coeff = 0.01;
  double max_coeff = 10;
};

namespace kernels {
/// One LAMB update of every tile, in place, with DeepSpeed's meaning:
///
///   g <- grad_factor * (sum of sources)
///   m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2;   u <- m / (sqrt(v) + eps) + weight_decay p
///   trust <- |p| / |u| of the tensor, between min_coeff and max_coeff; 1 where one of the norms is 0
///   p <- p - lr sqrt(c2) / c1 trust u;   param16 <- round(p)
///
/// Two passes over memory: u is worked out twice and stored nowhere. float32 arithmetic without contraction; norms in
/// double by a fixed order (lamb_rule.hpp): bit-equal on every implementation and number of threads.
/// Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020; there the
/// moments are corrected before the norm is taken, in DeepSpeed the step is.
void lamb(const Exec& exec, const LambArgs& args);
}  // namespace kernels

}  // namespace lockstep
