#pragma once

#include <functional>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"
#include "engine/leaf_sums.hpp"
#include "engine/step_graphs.hpp"

namespace lockstep::engine {

/// Sums the flat gradient over ranks in buckets, each started as soon as backward has made the last contribution to
/// it, so that communication runs under the rest of backward.
///
/// Readiness is counted here alone, by bucket: the plan says how many contributions each parameter's gradient gets in
/// a micro-batch, and a bucket waits for those of all slices that reach into it.
class GradientSync {
 public:
  /// `grad_uses` by parameter, as in nn::Plan. `graphs` must outlive it: what it asks of `comm` lies outside of them.
  /// With `leaves`, which must outlive it, micro-batches are added and exchanged by them; null: each micro-batch adds
  /// to `grads`, which all-reduces sum over ranks. `prepare`, if given, enqueues what is to be done to a bucket of
  /// `grads` before it is summed.
  GradientSync(comm::Communicator& comm, StepGraphs& graphs, const FlatLayout& layout,
               const std::vector<int>& grad_uses, Buffer grads, std::int64_t bucket_elements,
               LeafSums* leaves = nullptr, std::function<void(Buffer)> prepare = {});

  /// `micro`: which of the step's, from 0. `reduce`: it is the last, its completed buckets go out.
  void begin_micro_batch(int micro, bool reduce);
  /// One contribution to a slice's gradient is enqueued on `stream`.
  void contributed(int slice, StreamRef stream);
  /// Starts what has not been started, then orders `stream` behind every reduction.
  void finish(StreamRef stream);

  [[nodiscard]] std::size_t bucket_count() const { return buckets_.size(); }
  /// Bytes that one rank hands to the communicator each step.
  [[nodiscard]] std::size_t bytes_per_step() const;

 private:
  struct Bucket {
    Buffer part;
    LeafSums::Exchange exchange;  ///< with leaves
    int contributions = 0;        ///< in a micro-batch
    int missing = 0;              ///< of them
    bool started = false;
    comm::Pending pending = {};
  };
  void start(Bucket& bucket, StreamRef stream);

  comm::Communicator& comm_;
  StepGraphs& graphs_;
  Buffer grads_;
  std::vector<Bucket> buckets_;
  /// By slice: the buckets [first, last] that it reaches into.
  std::vector<std::pair<std::size_t, std::size_t>> buckets_of_slice_;
  LeafSums* leaves_;
  std::function<void(Buffer)> prepare_;
  int micro_ = 0;
  bool reduce_ = false;
};

}  // namespace lockstep::engine
