#pragma once

#include <memory>
#include <vector>

#include "core/device.hpp"
#include "data/dataset.hpp"
#include "nn/model.hpp"

namespace lockstep::engine {

/// Brings micro-batches from the host to the device. The copies are staged in a ring of pinned memory, so that the
/// host may go on to the next batch while the last ones are on their way.
class BatchUpload {
 public:
  /// Sized for batches of `shape`; others make it grow.
  BatchUpload(DeviceApi& device, StreamRef stream, const nn::BatchShape& shape);
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;
  ~BatchUpload();

  /// The batch on the device, valid in stream order until the next call.
  [[nodiscard]] nn::Batch upload(const data::HostBatch& batch);
  [[nodiscard]] std::size_t bytes() const;

 private:
  struct Slot {
    std::unique_ptr<Pinned<std::byte>> memory;
    EventRef copied = {};
  };
  DeviceApi& device_;
  StreamRef stream_;
  Arena tokens_, targets_, features_;
  std::vector<Slot> slots_;
  std::size_t next_ = 0;
};

}  // namespace lockstep::engine
