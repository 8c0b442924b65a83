#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "job/job.hpp"

namespace lockstep::run {

// How long a step takes on more ranks than are at hand, from what one and two of them take.

/// Messages that a rank sends for one all-reduce of ours: 2 log2 n where n is a power of two (halving and doubling, and
/// the way back), else 2 (n - 1) (every owner is sent its part and sends the sum). docs/algorithms.md.
[[nodiscard]] std::int64_t messages_of(int ranks);
/// Bytes that a rank sends for one of `bytes`: 2 (n - 1) / n of them, the least there is.
[[nodiscard]] double bytes_of(int ranks, double bytes);

/// What a step on one rank takes, and what a message costs.
struct ScalingModel {
  double compute_s = 0;         ///< forward, backward and update of one rank alone
  double backward_share = 0;    ///< of compute_s, that passes before the last bucket is ready and after the first
  std::vector<double> buckets;  ///< bytes, in the order in which backward completes them
  double latency_s = 0;         ///< of a message
  double bytes_per_s = 0;       ///< of a rank
  int slots = 0;                ///< ranks that compute at full speed at once; 0: all
};

struct ScalingPoint {
  int ranks = 1;
  double compute_s = 0;     ///< with slots shared
  double exchange_s = 0;    ///< of all buckets, one after another
  double serial_s = 0;      ///< a step whose exchange waits for its backward pass
  double overlapped_s = 0;  ///< a step whose buckets travel as soon as they are complete
  std::int64_t messages = 0;
  double bytes = 0;
};
/// A bucket takes its messages' latencies and its bytes at bytes_per_s; buckets take turns. Each is ready when backward
/// has done its share of the elements. With the same micro-batch on each rank (weak scaling).
[[nodiscard]] ScalingPoint predict(const ScalingModel& model, int ranks);

struct ScalingOptions {
  std::vector<int> ranks = {1, 2, 4, 8, 64, 1024};
  // 0: measured here.
  double compute_ms = 0, latency_us = 0, gigabytes_per_s = 0;
  int samples = 7;  ///< steps that are measured at each number of ranks
};
/// The job's plan with measured or given numbers, as a table for standard output. Where compute is measured so are
/// steps of 1, 2 and 4 ranks, threads of this process with one thread each, beside the prediction.
[[nodiscard]] std::string scaling_report(const job::LoadedJob& job, const ScalingOptions& options);

}  // namespace lockstep::run
