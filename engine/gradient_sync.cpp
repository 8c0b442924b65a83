#include "engine/gradient_sync.hpp"

#include <utility>

#include "core/error.hpp"

namespace lockstep::engine {

GradientSync::GradientSync(comm::Communicator& comm, StepGraphs& graphs, const FlatLayout& layout,
                           const std::vector<int>& grad_uses, Buffer grads, std::int64_t bucket_elements,
                           LeafSums* leaves, std::function<void(Buffer)> prepare)
    : comm_(comm), graphs_(graphs), grads_(grads), leaves_(leaves), prepare_(std::move(prepare)) {
  if (comm.size() == 1 && leaves == nullptr) return;
  buckets_of_slice_.resize(layout.slices().size());
  for (const FlatLayout::Bucket& range : layout.buckets(bucket_elements)) {
    Bucket bucket;
    bucket.part = grads.part(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.end - range.begin));
    for (int s = range.first_slice; s <= range.last_slice; ++s) {
      const auto slice = static_cast<std::size_t>(s);
      bucket.contributions += grad_uses[static_cast<std::size_t>(layout.slices()[slice].param)];
      // Buckets come in order, and a slice's are consecutive.
      auto& [first, last] = buckets_of_slice_[slice];
      last = buckets_.size();
      if (range.first_slice != s || layout.slices()[slice].begin >= range.begin) first = last;
    }
    if (leaves != nullptr) bucket.exchange = leaves->plan(range.begin, range.end - range.begin);
    buckets_.push_back(bucket);
  }
  if (leaves != nullptr) leaves->make_room();
}

void GradientSync::begin_micro_batch(int micro, bool reduce) {
  micro_ = micro;
  reduce_ = reduce;
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.contributions;
    bucket.started = false;
  }
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
  else
    bucket.pending = comm_.start_all_reduce(bucket.part, comm::Reduce::sum, stream);
  bucket.started = true;
}

void GradientSync::finish(StreamRef stream) {
  if (buckets_.empty()) return;
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

std::size_t GradientSync::bytes_per_step() const {
  if (leaves_ != nullptr) return leaves_->sent() * sizeof(float);
  return buckets_.empty() ? 0 : grads_.bytes();
}

}  // namespace lockstep::engine
