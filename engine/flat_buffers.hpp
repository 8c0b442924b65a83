#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"
#include "engine/shard_map.hpp"
#include "optim/optimizer.hpp"

namespace lockstep::engine {

/// What of the flat space a rank keeps of each kind of buffer: everything, or its shard. Follows from the ZeRO stage.
struct BufferExtents {
  Extent master = Extent::full;   ///< in fp32 the passes read it, so that only stage 3 shards it
  Extent param16 = Extent::full;  ///< stage 3
  Extent grad = Extent::full;     ///< what the update reads: stages 2 and 3, unless micro-batches are leaves
  Extent moments = Extent::full;  ///< stages 1 to 3
  bool one_copy = false;          ///< what the passes read is whole, and the same memory on all ranks

  [[nodiscard]] static BufferExtents of(int stage, DType compute, bool leaves, bool one_copy = false);
};

/// Owns one rank's flat buffers, which all share the layout of the flat space: master parameters, the 16-bit copy that
/// the passes read, the gradient sum and the optimizer's moments. Each is whole or this rank's shard. Made by the
/// communicator, so that ranks of one host can reach each other's; zero at first.
class FlatBuffers {
 public:
  FlatBuffers(comm::Communicator& comm, DeviceApi& device, const FlatLayout& layout, const ShardMap& map, DType compute,
              const optim::Optimizer& optimizer, BufferExtents extents);

  [[nodiscard]] float* master() const { return as_float(*master_); }
  /// Null in fp32 training, where the passes read the master.
  [[nodiscard]] void* param16() const { return param16_ != nullptr ? param16_->data() : nullptr; }
  [[nodiscard]] float* grad() const { return as_float(*grad_); }
  [[nodiscard]] std::vector<float*> moments() const;
  [[nodiscard]] DType compute() const { return compute_; }
  [[nodiscard]] const BufferExtents& extents() const { return extents_; }
  /// What the passes read, whole or a shard: the 16-bit copy, or the master in fp32.
  [[nodiscard]] Buffer values(Memory memory) const;
  [[nodiscard]] Extent values_extent() const { return compute_ == DType::f32 ? extents_.master : extents_.param16; }
  /// A rank writes of what is one memory for all ranks only what it owns.
  [[nodiscard]] bool one_copy(const std::string& name) const {
    return extents_.one_copy && compute_ == DType::f32 && index_of(name) == 0;
  }

  /// "master" and the optimizer's names of its moments: what a checkpoint holds.
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  /// ErrorKind::internal for what does not exist.
  [[nodiscard]] Extent extent(const std::string& name) const;
  /// Where a run that this rank owns begins in the buffer of this name.
  [[nodiscard]] float* at(const std::string& name, const ShardMap::Own& run) const;
  /// Of one copy for all ranks, an even share.
  [[nodiscard]] std::size_t bytes() const;

 private:
  static float* as_float(const comm::FlatArena& arena) { return reinterpret_cast<float*>(arena.data()); }
  [[nodiscard]] std::size_t index_of(const std::string& name) const;

  DType compute_;
  BufferExtents extents_;
  std::size_t ranks_;
  std::vector<std::string> names_;
  std::unique_ptr<comm::FlatArena> master_, grad_, param16_;
  std::vector<std::unique_ptr<comm::FlatArena>> moments_;
};

}  // namespace lockstep::engine
