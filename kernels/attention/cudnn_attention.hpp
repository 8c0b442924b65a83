#pragma once

// cuDNN's attention, as far as cuDNN can be had (kernels/cuda/cudnn.hpp).

#include <memory>

#include "kernels/attention/attention.hpp"
#include "kernels/cuda/cudnn.hpp"

namespace lockstep::kernels {

class CudnnAttention {
 public:
  [[nodiscard]] static std::unique_ptr<CudnnAttention> with(CudnnGraphs& graphs);
  virtual ~CudnnAttention() = default;

  /// False, with nothing done, where cuDNN does not take these sizes and types. What it needs is made when they are met
  /// first: a plan and, where `work` is too small, memory of `exec.device`.
  [[nodiscard]] virtual bool forward(const Exec& exec, const AttentionForwardArgs& args) = 0;
  [[nodiscard]] virtual bool backward(const Exec& exec, const AttentionBackwardArgs& args, std::size_t work_bytes) = 0;
};

/// Bytes that cuDNN's backward pass is expected to want: dq in fp32 and two numbers a query, in blocks of 128 queries.
/// 0 where the module was built without it, or it does not take such sizes.
[[nodiscard]] std::size_t cudnn_backward_bytes(const AttentionBackwardArgs& args) noexcept;

}  // namespace lockstep::kernels
