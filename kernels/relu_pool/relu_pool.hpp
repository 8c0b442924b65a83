#pragma once

#include "kernels/exec.hpp"

namespace lockstep {

/// Windows of pool x pool pixels that tile images [batch, height, width, channels] from the upper left corner. What is
/// left at the right and lower edges belongs to no window.
struct PoolShape {
  std::int64_t batch = 0;
  std::int64_t height = 0;  ///< of the images that are pooled
  std::int64_t width = 0;
  std::int64_t channels = 0;
  std::int64_t pool = 2;  ///< 1: no pooling

  [[nodiscard]] constexpr std::int64_t out_height() const { return height / pool; }
  [[nodiscard]] constexpr std::int64_t out_width() const { return width / pool; }
};

struct ReluPoolForwardArgs {
  const void* pre = nullptr;   ///< [batch, height, width, channels]
  const void* bias = nullptr;  ///< [channels]
  void* y = nullptr;           ///< [batch, height / pool, width / pool, channels]
  PoolShape shape = {};
  DType dtype = DType::f32;
};

struct ReluPoolBackwardArgs {
  const void* dy = nullptr;    ///< like y
  const void* pre = nullptr;   ///< as in forward
  const void* bias = nullptr;  ///< as in forward
  void* dpre = nullptr;        ///< like pre, and may be pre
  PoolShape shape = {};
  DType dtype = DType::f32;
};

namespace kernels {
/// Bias, rectifier and maximum over each window in one pass: y <- max(0, pre + bias), the sum in fp32. NaN comes
/// through.
void relu_pool_forward(const Exec& exec, const ReluPoolForwardArgs& args);
/// dpre <- dy where a window has its maximum, if that is above 0 (the first of equal ones, row by row), else 0. The
/// place is found again, not stored.
void relu_pool_backward(const Exec& exec, const ReluPoolBackwardArgs& args);
}  // namespace kernels

}  // namespace lockstep
