#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"
#include "engine/shard_map.hpp"
#include "engine/step_graphs.hpp"
#include "engine/unit_schedule.hpp"

namespace lockstep::engine {

/// What the parameter store asks before and after a unit's parameters are used, where ranks update shards of them.
class UnitValues {
 public:
  virtual ~UnitValues() = default;
  /// A pass with these events (nn::Plan) begins.
  virtual void begin_pass(const std::vector<nn::UnitEvent>& events, StreamRef stream) = 0;
  virtual void acquire(int unit, nn::Phase phase, StreamRef stream) = 0;
  virtual void release(int unit, nn::Phase phase) = 0;
  /// The unit's parameters, whole; between acquire and release.
  [[nodiscard]] virtual std::byte* begin_of(int unit) const = 0;
  /// The update is enqueued on `stream`: other ranks' parts are to be brought.
  virtual void updated(StreamRef stream) = 0;
  /// Nothing is under way any more, as far as `stream` is concerned.
  virtual void settle(StreamRef stream) = 0;
  [[nodiscard]] virtual std::size_t bytes() const = 0;
  /// Bytes that a rank hands to the communicator for a step of so many micro-batches.
  [[nodiscard]] virtual std::size_t bytes_per_step(int micro_batches) const = 0;
};

/// Stages 1 and 2: every rank keeps all parameters, updates its own parts and gathers the others'; this runs under the
/// next forward pass, which waits for each unit when it gets there. `values`: of the whole flat space.
[[nodiscard]] std::unique_ptr<UnitValues> make_refreshed_values(comm::Communicator& comm, StepGraphs& graphs,
                                                                const FlatLayout& layout, const ShardMap& map,
                                                                Buffer values,
                                                                const std::vector<nn::UnitEvent>& events);

/// What make_common_values has of its own, and a rank hands to the communicator each step.
constexpr std::size_t one_copy_bytes = sizeof(std::int32_t);

/// Stages 0 to 2 where all ranks read one copy of the parameters in memory that they share: each updates its own parts
/// of it, and nobody reads before all have. `values`: of the whole flat space. Collective.
[[nodiscard]] std::unique_ptr<UnitValues> make_common_values(comm::Communicator& comm, DeviceApi& device,
                                                             StepGraphs& graphs, const FlatLayout& layout,
                                                             Buffer values);

/// Stage 3: a rank keeps its shard of the parameters. A unit is gathered one unit ahead of its use, in every pass, and
/// its memory taken back afterwards. `shard`: of this rank. `passes`: all that there will be. Collective.
[[nodiscard]] std::unique_ptr<UnitValues> make_gathered_values(
    comm::Communicator& comm, DeviceApi& device, StepGraphs& graphs, const FlatLayout& layout, const ShardMap& map,
    Buffer shard, const std::vector<const std::vector<nn::UnitEvent>*>& passes);

/// Elements by unit, padding included.
[[nodiscard]] std::vector<std::int64_t> unit_elements(const FlatLayout& layout);

}  // namespace lockstep::engine
