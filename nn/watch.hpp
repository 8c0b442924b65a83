#pragma once

#include "nn/parameter.hpp"
#include "nn/tensor.hpp"

namespace lockstep::nn {

/// Is shown every number that a pass reads or makes, when the work that makes it has been enqueued and before it can
/// change: for looking where one went bad. What it is shown may be read on the pass's stream, during the call only.
class Watch {
 public:
  virtual ~Watch() = default;
  /// An operation of the plan begins; in backward, its backward half.
  virtual void begin(int op, Phase phase) = 0;
  /// It reads a parameter's value, [stored_rows, ...] in the compute dtype.
  virtual void value(ParamId id, const void* data) = 0;
  /// What it has made, forward: its result, and what it keeps for backward.
  virtual void result(const Tensor& tensor) = 0;
  /// Backward: what has reached an activation so far.
  virtual void gradient(const TensorRef& of, const Tensor& gradient) = 0;
  /// Backward: this rank's gradient of a parameter so far, fp32, laid out as the value.
  virtual void gradient(ParamId id, const float* data) = 0;
};

}  // namespace lockstep::nn
