#pragma once

// cuDNN's attention, as far as it can be had: the module is built with its graph API where CMake finds cuDNN's and
// cudnn_frontend's headers, and the library itself is opened when a context is made.

#include <memory>
#include <string>

#include "kernels/attention/attention.hpp"

namespace lockstep::kernels {

class CudnnAttention {
 public:
  /// Null where it cannot be had. text <- "cuDNN 9.19.0", or the reason.
  [[nodiscard]] static std::unique_ptr<CudnnAttention> open(std::string& text);
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
