#include "engine/gradient_sync.hpp"

#include <utility>

#include "core/error.hpp"

namespace lockstep::engine {

GradientSync::GradientSync(comm::Communicator& comm, StepGraphs& graphs, const FlatLayout& layout, const ShardMap& map,
                           const std::vector<int>& grad_uses, Buffer grads, LeafSums* leaves,
                           std::function<void(Buffer)> prepare, SyncWindows windows)
    : comm_(comm),
      graphs_(graphs),
      map_(map),
      leaves_(leaves),
      prepare_(std::move(prepare)),
      windows_(std::move(windows)) {
  if (comm.size() == 1 && leaves == nullptr) return;
  require(!has_windows() || (map.sharded() && leaves == nullptr), "gradient sync: windows are for shards");
  const std::vector<FlatRange> units = has_windows() ? layout.units() : std::vector<FlatRange>{};
  buckets_of_slice_.resize(layout.slices().size());
  padding_.resize(units.size());
  for (std::size_t i = 0; i < layout.slices().size() && has_windows(); ++i) {
    const FlatLayout::Slice& slice = layout.slices()[i];
    const auto unit = static_cast<std::size_t>(slice.unit);
    const std::int64_t end = slice.begin + slice.elements;
    const std::int64_t next = i + 1 < layout.slices().size() ? layout.slices()[i + 1].begin : layout.size();
    if (next > end)
      padding_[unit].push_back(
          windows_.memory.part(static_cast<std::size_t>(windows_.plan->begin[unit] + end - units[unit].begin),
                               static_cast<std::size_t>(next - end)));
  }
  for (const FlatLayout::Bucket& range : map.buckets()) {
    const auto unit = static_cast<std::size_t>(range.unit);
    const auto elements = static_cast<std::size_t>(range.end - range.begin);
    Bucket bucket;
    bucket.index = buckets_.size();
    bucket.unit = range.unit;
    bucket.part =
        has_windows()
            ? windows_.memory.part(
                  static_cast<std::size_t>(windows_.plan->begin[unit] + range.begin - units[unit].begin), elements)
            : grads.part(static_cast<std::size_t>(range.begin), elements);
    for (int s = range.first_slice; s <= range.last_slice; ++s) {
      const auto slice = static_cast<std::size_t>(s);
      bucket.contributions += grad_uses[static_cast<std::size_t>(layout.slices()[slice].param)];
      // Buckets come in order, and a slice's are consecutive.
      auto& [first, last] = buckets_of_slice_[slice];
      last = buckets_.size();
      if (range.first_slice != s || layout.slices()[slice].begin >= range.begin) first = last;
    }
    if (leaves != nullptr)
      bucket.exchange = map.sharded() ? leaves->plan(range.begin, range.end - range.begin, map.offsets(bucket.index))
                                      : leaves->plan(range.begin, range.end - range.begin);
    buckets_.push_back(std::move(bucket));
  }
  if (leaves != nullptr) leaves->make_room();
}

void GradientSync::begin_micro_batch(int micro, bool reduce) {
  micro_ = micro;
  reduce_ = reduce || has_windows();
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.contributions;
    bucket.started = false;
  }
  if (!has_windows()) return;
  visits_left_ = windows_.plan->visits;
  reducing_ = -1;
}

void GradientSync::contributed(int slice, StreamRef stream) {
  if (buckets_.empty()) return;
  const auto [first, last] = buckets_of_slice_[static_cast<std::size_t>(slice)];
  for (std::size_t b = first; b <= last; ++b) {
    Bucket& bucket = buckets_[b];
    require(bucket.missing > 0, "gradient sync: a gradient got more contributions than the plan counts");
    if (--bucket.missing > 0) continue;
    if (leaves_ != nullptr) leaves_->merge(micro_, bucket.exchange.begin, bucket.exchange.count);
    if (reduce_) graphs_.outside([this, &bucket, stream] { start(bucket, stream); });
  }
}

void GradientSync::start(Bucket& bucket, StreamRef stream) {
  if (prepare_) prepare_(bucket.part);
  if (leaves_ != nullptr)
    leaves_->start(bucket.exchange);
  else if (map_.sharded())
    bucket.pending = comm_.start_reduce_scatter(bucket.part, map_.offsets(bucket.index), comm::Reduce::sum, stream);
  else
    bucket.pending = comm_.start_all_reduce(bucket.part, comm::Reduce::sum, stream);
  bucket.started = true;
}

void GradientSync::settle(int unit, StreamRef stream) {
  for (Bucket& bucket : buckets_) {
    if (bucket.unit != unit) continue;
    require(bucket.missing == 0, "gradient sync: backward left a unit before its gradients were complete");
    graphs_.outside([this, &bucket, stream] { comm_.wait(bucket.pending, stream); });
    const FlatRange own = map_.own_part(bucket.index);
    if (own.size() == 0) continue;
    windows_.add(bucket.part.part(static_cast<std::size_t>(own.begin), static_cast<std::size_t>(own.size())),
                 map_.shard_begin(bucket.index), micro_ == 0);
  }
}

void GradientSync::acquired(int unit) {
  const auto index = static_cast<std::size_t>(unit);
  if (!has_windows() || buckets_.empty() || visits_left_[index] < windows_.plan->visits[index]) return;
  for (const Buffer& gap : padding_[index]) windows_.clear(gap);
}

void GradientSync::released(int unit, StreamRef stream) {
  if (!has_windows() || buckets_.empty() || --visits_left_[static_cast<std::size_t>(unit)] > 0) return;
  if (reducing_ >= 0) settle(reducing_, stream);
  reducing_ = unit;
}

void GradientSync::end_micro_batch(StreamRef stream) {
  if (reducing_ >= 0) settle(reducing_, stream);
  reducing_ = -1;
}

void GradientSync::finish(StreamRef stream) {
  if (buckets_.empty() || has_windows()) return;
  graphs_.outside([this, stream] {
    for (Bucket& bucket : buckets_)
      if (!bucket.started) start(bucket, stream);
    if (leaves_ != nullptr)
      for (Bucket& bucket : buckets_) bucket.pending = leaves_->finish(bucket.exchange);
    for (Bucket& bucket : buckets_) {
      comm_.wait(bucket.pending, stream);
      bucket.started = false;
    }
  });
}

std::size_t GradientSync::bytes_per_step(int micro_batches) const {
  if (leaves_ != nullptr) return leaves_->sent() * sizeof(float);
  std::size_t bytes = 0;
  for (const Bucket& bucket : buckets_) bytes += bucket.part.bytes();
  return has_windows() ? bytes * static_cast<std::size_t>(micro_batches) : bytes;
}

}  // namespace lockstep::engine
