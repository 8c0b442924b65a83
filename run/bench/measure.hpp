#pragma once

#include <functional>
#include <string>
#include <vector>

#include "run/launch.hpp"

namespace lockstep::run::bench {

/// Something to time: what one call of one rank does, by formula.
struct Task {
  std::string name = {};   ///< "adamw fp32"
  std::string shape = {};  ///< "1024 x 768 x 2304"
  double bytes = 0;        ///< of memory touched; 0: not what limits it
  double flops = 0;
  double items = 0;  ///< what a step takes
  std::string item = "tokens";
  /// Tasks of one group are limits of the same thing: the fastest of them counts.
  std::string group = {};
  /// Name or group of the tasks of the same measurement that bound this one; empty: nothing does.
  std::string ceiling = {};
  /// The share of the ceiling is one of time (both do the same job), not of the rates of bytes or FLOPs.
  bool same_job = false;
  std::function<void()> run = {};  ///< does it, or enqueues it on the stream of the measurement
};

struct Sample {
  double seconds = 0;  ///< of one call; of the slowest rank
  double waited = 0;   ///< share of that time in which a thread of ours was kept waiting by others, of the worst rank
};

/// A task's samples, in the order in which they were taken.
struct Measured {
  Task task = {};
  int calls = 1;  ///< in one sample
  std::vector<Sample> samples = {};
  /// Samples that count: those that others did not disturb or, if there were too few, the least disturbed ones.
  std::vector<double> kept = {};
  bool disturbed = false;  ///< too few were left alone

  [[nodiscard]] double median() const;
  /// Value below which a share `q` of the kept samples lies, between neighbours in proportion.
  [[nodiscard]] double quantile(double q) const;
  [[nodiscard]] int rejected() const { return static_cast<int>(samples.size() - kept.size()); }
};

struct Sampling {
  int samples = 20;           ///< undisturbed ones to end with
  double seconds = 60;        ///< after so long no more than `samples` are tried
  double least_time = 2e-3;   ///< of a sample: short calls are repeated within one
  double most_waited = 0.02;  ///< share of a sample's time; above it is disturbed
  int most_tries = 4;         ///< times `samples`
};

/// Times the tasks in turn, round by round, so that a ratio of two of them comes from the same minutes. All ranks call
/// it alike; they begin each sample together, and a sample is the slowest rank's.
///
/// On a device whose calls enqueue (not immediate) all rounds are enqueued on `stream` with timed events between the
/// tasks, and the host waits once, after the last: nothing waits inside a timed window. Such samples are never
/// rejected.
[[nodiscard]] std::vector<Measured> measure(RankContext& rank, StreamRef stream, std::vector<Task> tasks,
                                            const Sampling& sampling);

/// Sets `kept` and `disturbed` from the samples.
void choose(Measured& measured, const Sampling& sampling);

/// What is measured with `of`: bytes or FLOPs a second, or of tasks of the same job 1 / seconds. 0 if it has neither.
[[nodiscard]] double rate(const Measured& of);
/// Share of its ceiling that a task reaches, by medians; 0 if it has none among `all`.
[[nodiscard]] double share_of_ceiling(const Measured& of, const std::vector<Measured>& all);

}  // namespace lockstep::run::bench
