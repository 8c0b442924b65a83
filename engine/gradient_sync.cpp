#include "engine/gradient_sync.hpp"

namespace lockstep::engine {

GradientSync::GradientSync(comm::Communicator& comm, const FlatLayout& layout, Buffer grads,
                           std::int64_t bucket_elements)
    : comm_(comm), grads_(grads) {
  if (comm.size() > 1) buckets_ = layout.buckets(bucket_elements);
  missing_.resize(buckets_.size());
  pending_.resize(buckets_.size());
  started_.resize(buckets_.size());
}

void GradientSync::begin_micro_batch(bool reduce) {
  reduce_ = reduce;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    missing_[b] = buckets_[b].last_slice - buckets_[b].first_slice + 1;
    started_[b] = false;
  }
}

void GradientSync::slice_complete(int slice, StreamRef stream) {
  if (!reduce_) return;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    const FlatLayout::Bucket& bucket = buckets_[b];
    if (slice < bucket.first_slice || slice > bucket.last_slice) continue;
    if (--missing_[b] == 0) start(b, stream);
  }
}

void GradientSync::start(std::size_t bucket, StreamRef stream) {
  const FlatLayout::Bucket& range = buckets_[bucket];
  pending_[bucket] = comm_.start_all_reduce(
      grads_.part(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.end - range.begin)),
      comm::Reduce::sum, stream);
  started_[bucket] = true;
}

void GradientSync::finish(StreamRef stream) {
  for (std::size_t b = 0; b < buckets_.size(); ++b)
    if (!started_[b]) start(b, stream);
  for (std::size_t b = 0; b < buckets_.size(); ++b) comm_.wait(pending_[b], stream);
}

std::size_t GradientSync::bytes_per_step() const { return buckets_.empty() ? 0 : grads_.bytes(); }

}  // namespace lockstep::engine
