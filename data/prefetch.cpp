#include "data/prefetch.hpp"

#include <utility>

#include "core/error.hpp"

namespace lockstep::data {

Prefetch::Prefetch(const Dataset& dataset, std::int64_t samples, std::int64_t count,
                   std::function<std::int64_t(std::int64_t k)> position_of, std::size_t depth)
    : dataset_(dataset), samples_(samples), count_(count), position_of_(std::move(position_of)), ring_(depth + 1) {
  require(depth >= 1, "Prefetch: at least one batch must be allowed to wait");
  thread_ = std::jthread([this] { make(); });
}

Prefetch::~Prefetch() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  changed_.notify_all();
}

void Prefetch::make() {
  for (std::int64_t k = 0; k < count_; ++k) {
    {
      std::unique_lock lock(mutex_);
      // The batch in use is taken_ - 1; the ring has room for it and depth others.
      const auto depth = static_cast<std::int64_t>(ring_.size()) - 1;
      changed_.wait(lock, [&] { return stop_ || k < taken_ + depth; });
      if (stop_) return;
    }
    std::exception_ptr error;
    try {
      dataset_.train_batch(position_of_(k), samples_, ring_[static_cast<std::size_t>(k) % ring_.size()]);
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error_ = error;
    if (!error) ++made_;
    changed_.notify_all();
    if (error) return;
  }
}

const HostBatch& Prefetch::next() {
  std::unique_lock lock(mutex_);
  require(taken_ < count_, "Prefetch: all batches have been given out");
  ++taken_;  // gives the last one back
  changed_.notify_all();
  changed_.wait(lock, [&] { return made_ >= taken_ || error_ != nullptr; });
  if (made_ < taken_) std::rethrow_exception(error_);
  return ring_[static_cast<std::size_t>(taken_ - 1) % ring_.size()];
}

}  // namespace lockstep::data
