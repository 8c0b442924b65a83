#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/matmul/matmul.hpp"
#include "nn/parameter.hpp"
#include "nn/tensor.hpp"

namespace lockstep::nn {

/// Work of one operation: floating-point operations and bytes of memory touched.
struct Cost {
  double flops = 0;
  double bytes = 0;
  Cost& operator+=(const Cost& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
};

struct OpPlan {
  std::string name;
  Shape out;
  Cost forward;
  Cost backward;
  bool again = false;  ///< backward computes it a second time (Context::recomputed)
};

/// A pass begins or ends to use a unit's parameters.
struct UnitEvent {
  int unit = 0;
  Phase phase = Phase::forward;
  bool acquire = true;  ///< else release
  bool operator==(const UnitEvent&) const = default;
};

/// Everything about a step that follows from shapes alone.
struct Plan {
  std::vector<OpPlan> ops;
  /// For each parameter the number of contributions its gradient gets in one micro-batch (a tied one gets several).
  std::vector<int> grad_uses;
  /// Parameters in the order in which their gradients are complete: at the last contribution.
  std::vector<ParamId> completion_order;
  /// What the store will be told of units, in order: of the forward pass, then of the backward pass if there is one. A
  /// tied parameter's unit comes twice.
  std::vector<UnitEvent> unit_events;
  std::size_t train_bytes = 0;  ///< activation memory of a training pass, exactly
  /// Every product with a weight, in order and without buffers: what kernels::packed_weight_bytes is asked about.
  std::vector<MatmulArgs> weight_products;
  Cost forward;  ///< of one micro-batch
  Cost backward;
  Cost again;  ///< of what backward computes a second time, besides
};

}  // namespace lockstep::nn
