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
  enum class Kind : std::uint8_t { adam, sgd, lion, adagrad, lamb, muon };
  Kind kind = Kind::adam;
  double eps = 1e-8;               ///< Adam, Adagrad, Lamb, Muon's AdamW
  bool decoupled = true;           ///< Adam: AdamW's decay
  bool bias_correction = true;     ///< Adam, Lamb
  bool momentum = false;           ///< SGD: some group has momentum, so a buffer exists
  double dampening = 0;            ///< SGD
  bool nesterov = false;           ///< SGD, Muon
  double initial_accumulator = 0;  ///< Adagrad: what the sum of squares begins with
  double min_coeff = 0.01;         ///< Lamb: the smallest and largest ratio of a parameter's norm to its step's
  double max_coeff = 10;
  int ns_steps = 5;  ///< Muon: steps of the Newton-Schulz iteration
};

/// A parameter, for optimizers that look at whole ones.
struct Tensor {
  TileRun tiles;
  std::int64_t rows = 0;  ///< of a matrix [in, out] of a hidden layer; of everything else 0
  std::int64_t cols = 0;
};

/// One step's inputs: pointers into flat buffers that all share the layout of the flat space. Of each of them a rank
/// has all or its shard (kernels/flat.hpp); moments are shards. Where nothing is divided the two are the same.
struct Update {
  float* master = nullptr;  ///< fp32 parameters, updated in place
  Extent master_extent = Extent::shard;
  void* param16 = nullptr;  ///< rounded copy, or null in fp32 training
  DType param16_dtype = DType::bf16;
  Extent param16_extent = Extent::full;
  GradSources grad = {};        ///< scaled gradient sum
  const Tile* tiles = nullptr;  ///< this rank's part of the flat space, by parameter group
  std::uint32_t tile_count = 0;
  /// Of each parameter the tiles among those; null for an optimizer whose granularity is element.
  const TileRun* tensors = nullptr;
  std::uint32_t tensor_count = 0;
  void* scratch = nullptr;            ///< of scratch_bytes(tile_count)
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
  /// What an update works in besides its moments, on the device; nothing is kept there from step to step.
  [[nodiscard]] virtual std::size_t scratch_bytes(std::size_t /*tile_count*/) const { return 0; }
  /// moments[i] is the buffer named moments()[i]. Reads the step's values on the device; enqueues its kernels.
  virtual void update(const Exec& exec, const Update& update, const std::vector<float*>& moments) const = 0;
};

/// `tensors`: all of the tile list that update() will be given, in its order. Muon alone looks at them, and needs them
/// for all but its names.
[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                                        const std::vector<Tensor>& tensors = {});

}  // namespace lockstep::optim
