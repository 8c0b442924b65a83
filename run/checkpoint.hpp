#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.hpp"

namespace lockstep::run {

/// Everything besides tensors that a run needs to go on exactly.
struct RunState {
  StepState step;
  std::int64_t sample_position = 0;  ///< of the next step's first sample
  std::uint64_t seed = 1;            ///< of the run; parameters, data order
  std::int64_t train_batch = 0;      ///< samples a step; kept on resume, whatever the number of ranks
  std::int64_t micro_batch = 0;
  int world = 1;    ///< ranks that wrote it
  int threads = 1;  ///< of each; with it and the ISA a resume repeats the bits
  std::string isa;
  std::string job;   ///< the effective job file
  std::string data;  ///< fingerprint of the data set, in hex
};

/// Where a run's checkpoints live. One implementation now; the durable format implements the same interface.
///
/// Tensors are whole and logical (no padding, no ranks), so any number of ranks reads any checkpoint. A checkpoint
/// appears under its name only when it is complete.
class CheckpointStore {
 public:
  virtual ~CheckpointStore() = default;
  /// Rank 0's part of saving; the other ranks need not call. Removes all but the newest `keep_last`.
  virtual std::string save(engine::Engine& engine, const RunState& state) = 0;
  /// The newest readable checkpoint, or nothing.
  [[nodiscard]] virtual std::optional<std::string> newest() const = 0;
  /// Only the state: what a new engine needs before it is made.
  [[nodiscard]] virtual RunState read_state(const std::string& path) const = 0;
  /// Fills the engine. Every rank calls it. ErrorKind::checkpoint names the tensor that is missing or differs.
  virtual void load(const std::string& path, engine::Engine& engine) const = 0;
};

/// Checkpoints as folders `<folder>/step-N` with manifest.json and tensors.bin (docs/checkpoint.md).
[[nodiscard]] std::unique_ptr<CheckpointStore> make_checkpoint_store(const std::string& folder, std::int64_t keep_last);

}  // namespace lockstep::run
