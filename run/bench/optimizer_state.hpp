#pragma once

#include <cstddef>

#include "comm/communicator.hpp"
#include "kernels/adam/adam.hpp"
#include "kernels/grad_norm/grad_norm.hpp"
#include "kernels/sgd/sgd.hpp"
#include "run/bench/workbench.hpp"

namespace lockstep::run::bench {

inline constexpr std::int64_t gpt2_124m = 124'439'808;  ///< parameters

/// Flat buffers of one rank, filled as in the middle of a training run, and the arguments of kernels that work on them.
/// Everything lies in the bench's memory, or where the caller has put it in the place of that.
struct OptimizerState {
  /// Of `elements` parameters, of all of which this rank updates those of `part`, whose bounds are whole tiles (or the
  /// end): moments are made for these alone.
  OptimizerState(Workbench& bench, std::size_t elements, comm::Part part, float* parameters, float* gradients);
  /// Of everything, in memory of its own.
  OptimizerState(Workbench& bench, std::size_t elements)
      : OptimizerState(bench, elements, {0, elements}, bench.numbers(elements, 0.02F), bench.numbers(elements, 1e-3F)) {
  }

  [[nodiscard]] AdamArgs adam(bf16* copy = nullptr) const;
  [[nodiscard]] SgdArgs sgd() const;
  [[nodiscard]] GradLeafSumsArgs leaf_sums() const;
  /// Of all leaves: sums of those that other ranks have must have been added.
  [[nodiscard]] GradNormArgs norm() const;

  float *p, *g;
  float *m, *v;
  Tile* tiles = nullptr;
  NormLeaf* leaves = nullptr;
  std::uint32_t pieces = 0;      ///< tiles, and leaves, of this rank's part
  std::uint32_t all_leaves = 0;  ///< of all ranks
  GroupStep* groups = nullptr;
  StepState* state = nullptr;
  double* sums = nullptr;  ///< [all_leaves]
  std::int64_t* bad = nullptr;
  StepReport* report = nullptr;
};

}  // namespace lockstep::run::bench
