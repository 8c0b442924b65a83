#pragma once

#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"

namespace lockstep::engine {

/// Sums the flat gradient over ranks in buckets, each started as soon as backward has completed its slices, so that
/// communication runs under the rest of backward.
class GradientSync {
 public:
  GradientSync(comm::Communicator& comm, const FlatLayout& layout, Buffer grads, std::int64_t bucket_elements);

  /// `reduce`: this micro-batch is the step's last, its completed buckets go out.
  void begin_micro_batch(bool reduce);
  /// All contributions to a slice are enqueued on `stream`.
  void slice_complete(int slice, StreamRef stream);
  /// Starts what has not been started, then orders `stream` behind every reduction.
  void finish(StreamRef stream);

  [[nodiscard]] std::size_t bucket_count() const { return buckets_.size(); }
  /// Bytes that one rank hands to the communicator each step.
  [[nodiscard]] std::size_t bytes_per_step() const;

 private:
  void start(std::size_t bucket, StreamRef stream);

  comm::Communicator& comm_;
  Buffer grads_;
  std::vector<FlatLayout::Bucket> buckets_;
  std::vector<int> missing_;            ///< by bucket: slices not complete yet
  std::vector<comm::Pending> pending_;  ///< by bucket
  std::vector<bool> started_;
  bool reduce_ = false;
};

}  // namespace lockstep::engine
