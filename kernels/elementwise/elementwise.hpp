#pragma once

#include "kernels/exec.hpp"
#include "kernels/flat.hpp"

namespace lockstep {

struct CastArgs {
  const void* from = nullptr;
  DType from_dtype = DType::f32;
  void* to = nullptr;
  DType to_dtype = DType::bf16;
  std::size_t count = 0;
};

struct AxpyArgs {
  double a = 1;  ///< rounded to float
  const void* x = nullptr;
  DType x_dtype = DType::f32;
  void* y = nullptr;
  DType y_dtype = DType::f32;
  std::size_t count = 0;
};

struct ScaleArgs {
  double a = 1;  ///< rounded to float
  void* y = nullptr;
  DType dtype = DType::f32;
  std::size_t count = 0;
};

struct OrderedSumArgs {
  GradSources sources = {};
  void* to = nullptr;  ///< may be one of the sources
  DType to_dtype = DType::f32;
  std::size_t count = 0;
};

namespace kernels {
/// to <- from, rounded to nearest even. f32, bf16, f16 in any pair.
void cast(const Exec& exec, const CastArgs& args);
/// y <- y + a x, computed in fp32, rounded once to y's type.
void axpy(const Exec& exec, const AxpyArgs& args);
/// y <- a y, computed in fp32, rounded once to y's type.
void scale(const Exec& exec, const ScaleArgs& args);
/// to <- the sum of the sources as the tree T over them (core/sum_tree.hpp), in fp32, rounded once.
void ordered_sum(const Exec& exec, const OrderedSumArgs& args);
}  // namespace kernels

}  // namespace lockstep
