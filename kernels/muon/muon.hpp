#pragma once

#include "kernels/decide/step.hpp"
#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

/// The steps of a Muon update of one matrix, around the products of kernels::matmul. All pointers are the device's.
/// `direction` and what is made of it are the matrix's elements alone, without the rest of the flat space.
struct MuonDirectionArgs {
  float* momentum = nullptr;  ///< buffer, at a tile's shard index
  GradSources grad = {};
  const Tile* tiles = nullptr;  ///< of the matrix, all of them
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;
  const StepState* state = nullptr;
  float* direction = nullptr;  ///< out
  double* squares = nullptr;   ///< out [tile_count]
  std::int32_t nesterov = 1;
};

struct MuonNormalizeArgs {
  float* x = nullptr;  ///< [count]
  std::size_t count = 0;
  const double* squares = nullptr;  ///< [tile_count]
  std::uint32_t tile_count = 0;
  float eps = 1e-7F;
};

struct MuonPolynomialArgs {
  float* square = nullptr;      ///< [n, n], in: A A, out: c A A + b A + a I
  const float* gram = nullptr;  ///< A [n, n]
  std::int64_t n = 0;
  float a = 0, b = 0, c = 0;
};

struct MuonApplyArgs {
  float* master = nullptr;
  Extent master_extent = Extent::shard;
  void* param16 = nullptr;
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  const Tile* tiles = nullptr;  ///< of the matrix
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;
  const StepState* state = nullptr;
  const float* direction = nullptr;
  float ratio = 1;
};

namespace kernels {
/// g <- grad_factor * (sum of sources);   buf <- momentum buf + (1 - momentum) g
/// direction <- nesterov ? momentum buf + (1 - momentum) g : buf;   squares[t] <- sum of its squares in tile t
void muon_direction(const Exec& exec, const MuonDirectionArgs& args);

/// x <- x / max(sqrt(sum of squares), eps)
void muon_normalize(const Exec& exec, const MuonNormalizeArgs& args);

/// square <- c square + b gram + a I
void muon_polynomial(const Exec& exec, const MuonPolynomialArgs& args);

/// p <- p - lr (ratio direction + weight_decay p);   param16 <- round(p)
///
/// All four in float32 without contraction, sums of squares in double by a fixed order: bit-equal on every
/// implementation. The products between them are not: kernels::matmul is free in its order of addition.
/// Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, in torch's formulation.
void muon_apply(const Exec& exec, const MuonApplyArgs& args);
}  // namespace kernels

}  // namespace lockstep
