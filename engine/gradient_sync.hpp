#pragma once

#include <functional>
#include <vector>

#include "comm/communicator.hpp"
#include "engine/flat_layout.hpp"
#include "engine/leaf_sums.hpp"
#include "engine/shard_map.hpp"
#include "engine/step_graphs.hpp"
#include "engine/unit_schedule.hpp"

namespace lockstep::engine {

/// Where the gradients of ZeRO stages 2 and 3 are made.
struct SyncWindows {
  const GradientWindows* plan = nullptr;
  Buffer memory = {};
  /// Enqueues: the shard from this index on <- from, or += from.
  std::function<void(Buffer from, std::int64_t shard_begin, bool first)> add = {};
  /// Enqueues: zeros.
  std::function<void(Buffer)> clear = {};
};

/// Sums the flat gradient over ranks in buckets, each started as soon as backward has made the last contribution to
/// it, so that communication runs under the rest of backward.
///
/// Readiness is counted here alone, by bucket: the plan says how many contributions each parameter's gradient gets in
/// a micro-batch, and a bucket waits for those of all slices that reach into it.
///
/// Where the map divides nothing (ZeRO stage 0) buckets are all-reduced. In stage 1 they are reduce-scattered inside
/// the whole gradient, of which each rank then has its own parts. In stages 2 and 3 gradients are made in windows, one
/// unit at a time; each micro-batch's are reduce-scattered, and this rank's parts added to its shard.
class GradientSync {
 public:
  /// `grad_uses` by parameter, as in nn::Plan. `graphs`, `map` and `layout` must outlive it: what it asks of `comm`
  /// lies outside of them. `grads`: the whole gradient, or with `windows` nothing. With `leaves`, which must outlive
  /// it, micro-batches are added and exchanged by them; null: each micro-batch adds to `grads`, which is summed over
  /// ranks. `prepare`, if given, enqueues what is to be done to a bucket before it is summed.
  GradientSync(comm::Communicator& comm, StepGraphs& graphs, const FlatLayout& layout, const ShardMap& map,
               const std::vector<int>& grad_uses, Buffer grads, LeafSums* leaves = nullptr,
               std::function<void(Buffer)> prepare = {}, SyncWindows windows = {});

  /// `micro`: which of the step's, from 0. `reduce`: it is the last, its completed buckets go out. With windows they
  /// always do.
  void begin_micro_batch(int micro, bool reduce);
  /// One contribution to a slice's gradient is enqueued on `stream`.
  void contributed(int slice, StreamRef stream);
  /// With windows: backward comes to a unit. The padding between its slices, where another unit's gradient may have
  /// been, becomes zero, which it is in a whole gradient too: the norm's leaves have it.
  void acquired(int unit);
  /// With windows: backward is done with a unit for once. Makes room for the next one.
  void released(int unit, StreamRef stream);
  /// With windows, after each micro-batch: everything is in the shard, as far as `stream` is concerned.
  void end_micro_batch(StreamRef stream);
  /// Starts what has not been started, then orders `stream` behind every reduction.
  void finish(StreamRef stream);

  [[nodiscard]] bool has_windows() const { return windows_.plan != nullptr; }
  [[nodiscard]] std::size_t bucket_count() const { return buckets_.size(); }
  /// Bytes that one rank hands to the communicator each step, of `micro_batches` of its own.
  [[nodiscard]] std::size_t bytes_per_step(int micro_batches = 1) const;

 private:
  struct Bucket {
    Buffer part;
    std::size_t index = 0;  ///< in the map
    int unit = 0;
    LeafSums::Exchange exchange;  ///< with leaves
    int contributions = 0;        ///< in a micro-batch
    int missing = 0;              ///< of them
    bool started = false;
    comm::Pending pending = {};
  };
  void start(Bucket& bucket, StreamRef stream);
  /// With windows: a unit's buckets are summed and in the shard.
  void settle(int unit, StreamRef stream);

  comm::Communicator& comm_;
  StepGraphs& graphs_;
  const ShardMap& map_;
  std::vector<Bucket> buckets_;
  std::vector<std::pair<std::size_t, std::size_t>> buckets_of_slice_;  ///< first and last
  LeafSums* leaves_;
  std::function<void(Buffer)> prepare_;
  SyncWindows windows_;
  std::vector<std::vector<Buffer>> padding_;  ///< by unit, with windows
  std::vector<int> visits_left_;              ///< by unit, with windows
  int reducing_ = -1;                         ///< the unit whose window is not free yet
  int micro_ = 0;
  bool reduce_ = false;
};

}  // namespace lockstep::engine
