#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/table.hpp"

namespace lockstep::optim {

/// The smallest piece of the flat space that an optimizer can update on its own; engine cuts shards accordingly.
enum class Granularity : std::uint8_t { element, tensor_norm, whole_matrix };

/// What an optimizer fixes for a whole run. lr, betas, momentum and weight_decay are not here: they change per step and
/// group and arrive in the GroupSteps.
struct OptimizerOptions {
  enum class Kind : std::uint8_t { adam, sgd };
  Kind kind = Kind::adam;
  double eps = 1e-8;            ///< Adam
  bool decoupled = true;        ///< Adam: AdamW's decay
  bool bias_correction = true;  ///< Adam
  bool momentum = false;        ///< SGD: some group has momentum, so a buffer exists
  double dampening = 0;         ///< SGD
  bool nesterov = false;        ///< SGD
};

/// One step's inputs: pointers into flat buffers that all share the layout of the flat space.
struct Update {
  float* master = nullptr;  ///< fp32 parameters, updated in place
  void* param16 = nullptr;  ///< rounded copy, or null in fp32 training
  DType param16_dtype = DType::bf16;
  GradSources grad = {};        ///< scaled gradient sum
  const Tile* tiles = nullptr;  ///< this rank's part of the flat space, by parameter group
  std::uint32_t tile_count = 0;
  const GroupStep* groups = nullptr;  ///< written by decide
  const StepState* state = nullptr;   ///< skip and grad_factor, written by decide
};

/// A fused update rule over the flat space. Knows nothing of ranks: engine says which tiles are this rank's. Its
/// moments are flat buffers that engine allocates, shards and saves.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual Granularity granularity() const { return Granularity::element; }
  /// fp32 state buffers by the name they have in a checkpoint: {"exp_avg", "exp_avg_sq"}.
  [[nodiscard]] virtual std::vector<std::string> moments() const = 0;
  /// moments[i] is the buffer named moments()[i]. Reads the step's values on the device; enqueues one kernel.
  virtual void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const = 0;
};

[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options);

}  // namespace lockstep::optim
