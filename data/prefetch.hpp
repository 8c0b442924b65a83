#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/dataset.hpp"

namespace lockstep::data {

/// Makes training batches ahead of their use, on a thread of its own: next() gives the same batches in the same order
/// as calls of train_batch would. At most `depth` batches wait at a time. next() is for one thread.
class Prefetch {
 public:
  /// Batches 0 .. count - 1 have `samples` samples each, the k-th from `position_of(k)` on; that and `dataset` are used
  /// by the other thread, and `dataset` outlives this object. Requires depth >= 1.
  Prefetch(const Dataset& dataset, std::int64_t samples, std::int64_t count,
           std::function<std::int64_t(std::int64_t k)> position_of, std::size_t depth = 2);
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;
  /// Whatever is left is not made.
  ~Prefetch();

  /// The next batch, valid until the next call. Throws what making it threw; ErrorKind::internal after the last one.
  [[nodiscard]] const HostBatch& next();

 private:
  void make();

  const Dataset& dataset_;
  const std::int64_t samples_;
  const std::int64_t count_;
  const std::function<std::int64_t(std::int64_t)> position_of_;
  std::vector<HostBatch> ring_;  ///< batch k at k mod its size: one is in use, the others wait or are made
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t made_ = 0;   ///< batches that are ready, or were
  std::int64_t taken_ = 0;  ///< of them given out
  bool stop_ = false;
  std::exception_ptr error_;  ///< of the batch after the made ones
  std::jthread thread_;       // last: it uses the others
};

}  // namespace lockstep::data
