#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// As AdamArgs; the momentum of each group comes from its GroupStep.
struct SgdArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  float* momentum = nullptr;  ///< buffer, at a tile's shard index; null if no group has momentum
  void* param16 = nullptr;
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};
  const Tile* tiles = nullptr;
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;
  const StepState* state = nullptr;  ///< applied == 1 marks the first update, which fills the buffer with d
  float dampening = 0;
  std::int32_t nesterov = 0;
};

namespace kernels {
/// One SGD update of every tile, in place, with torch's meaning:
///
///   d <- grad_factor * (sum of sources) + weight_decay p
///   buf <- d on the first update, else momentum buf + (1 - dampening) d;   d <- nesterov ? d + momentum buf : buf
///   p <- p - lr d;   param16 <- round(p)
///
/// Source: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
/// ICML 2013, in torch's formulation.
void sgd(const Exec& exec, const SgdArgs& args);
}  // namespace kernels

}  // namespace lockstep
