#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"

namespace lockstep::nn {

enum class Init : std::uint8_t { zeros, ones, normal };

using ParamId = int;

/// A learned tensor as a model declares it. `shape` is logical: what a checkpoint holds. Rows beyond it (a vocabulary
/// padded for speed) exist only in memory, are zero and stay zero.
struct ParameterSpec {
  std::string name;  ///< Hugging Face's name: "transformer.h.0.attn.c_attn.weight"
  std::vector<std::int64_t> shape;
  std::int64_t stored_rows = 0;  ///< first dimension in memory, >= shape[0]
  int unit = 0;                  ///< what is gathered and released together: embedding, a block, head
  Init init = Init::normal;
  double stddev = 0.02;

  [[nodiscard]] std::int64_t row_elements() const {
    std::int64_t n = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) n *= shape[i];
    return n;
  }
  [[nodiscard]] std::int64_t elements() const { return shape.front() * row_elements(); }       ///< logical
  [[nodiscard]] std::int64_t stored_elements() const { return stored_rows * row_elements(); }  ///< in memory
};

enum class Phase : std::uint8_t { forward, backward };

/// Where a contribution to a parameter's gradient goes: fp32, shaped like the value in memory.
struct GradView {
  float* data = nullptr;
  /// Nothing has been contributed yet, and what stands there means nothing: the kernel writes every stored element.
  /// Otherwise it adds. So no pass over memory ever clears a gradient.
  bool first = false;
};

/// Where a model's values and gradients live; declared here, implemented in engine. A model never knows whether
/// values are whole on every rank or gathered for the moment.
///
/// Views are valid only between acquire and release of the parameter's unit and are never kept. Every use is bracketed
/// even where both calls do nothing. Kernel work enqueued between them may still run after release: a store
/// orders its own work behind the stream.
class ParameterStore {
 public:
  virtual ~ParameterStore() = default;
  virtual void acquire(int unit, Phase phase) = 0;
  virtual void release(int unit, Phase phase) = 0;
  /// [stored_rows, ...] in the compute dtype, on the device.
  [[nodiscard]] virtual const void* value(ParamId id) = 0;
  /// Changes whenever the values do; (id, version) keys packed copies, whatever value(id) is.
  [[nodiscard]] virtual std::uint64_t version(ParamId id) = 0;
  /// `first` until grad_contributed(id) is called for the first time in the sum that is being made: over the
  /// micro-batches of a step, or over one micro-batch where a store adds those up itself.
  [[nodiscard]] virtual GradView grad(ParamId id) = 0;
  /// One contribution to grad(id) has been enqueued. Fires as often per micro-batch as the plan counts.
  virtual void grad_contributed(ParamId id) = 0;
};

}  // namespace lockstep::nn
