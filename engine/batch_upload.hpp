#pragma once

#include <vector>

#include "core/device.hpp"
#include "data/dataset.hpp"
#include "nn/model.hpp"

namespace lockstep::engine {

/// Brings micro-batches from the host to the device, always to the same place, each with one copy. The copies are
/// staged in a ring of pinned memory, so that the host may go on to the next batch while the last ones are on their
/// way.
class BatchUpload {
 public:
  /// For batches of at most `shape` for `model`, of which a step has `micro_batches`.
  BatchUpload(DeviceApi& device, StreamRef stream, const nn::Model& model, const nn::BatchShape& shape,
              int micro_batches);
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;
  ~BatchUpload();

  /// The batch on the device, valid in stream order until the next call. ErrorKind::internal if it is larger than what
  /// there is memory for.
  [[nodiscard]] nn::Batch upload(const data::HostBatch& batch);
  [[nodiscard]] std::size_t bytes() const { return block_.bytes() + pinned_.size(); }
  /// The same, before there is one. `immediate`: the device does its work at once.
  [[nodiscard]] static std::size_t bytes_of(bool immediate, const nn::Model& model, const nn::BatchShape& shape);

 private:
  /// A part of the block.
  struct Region {
    std::size_t begin = 0;
    std::size_t bytes = 0;
    [[nodiscard]] std::size_t end() const { return begin + bytes; }
  };
  /// Where the gradient's factor, the first sample's position, targets, tokens, features and values lie.
  struct Layout {
    Region grad_factor, first_sample, targets, tokens, features, values;
    Layout(const nn::BatchShape& shape, const nn::Model& model);
    [[nodiscard]] std::size_t bytes() const { return values.end(); }
  };

  DeviceApi& device_;
  StreamRef stream_;
  int micro_batches_;
  Layout layout_;
  Arena block_;
  Pinned<std::byte> pinned_;      ///< [slots] of the block
  std::vector<EventRef> copied_;  ///< by slot
  std::size_t next_ = 0;
};

}  // namespace lockstep::engine
