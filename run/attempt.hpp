#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "run/child_job.hpp"

namespace lockstep::run {

// What a run's folder shows to whoever takes no part in the run.

/// The step of the last whole line of a metrics file; 0 without one.
[[nodiscard]] std::int64_t last_step(const std::string& metrics);
/// Of a file; 0 without one.
[[nodiscard]] std::uintmax_t size_of(const std::string& path);
/// The names in a folder, sorted; none where it cannot be read.
[[nodiscard]] std::vector<std::string> names_in(const std::string& folder);
/// Temporary folders of checkpoints that are being written, or were when the run's job was killed.
[[nodiscard]] std::vector<std::string> partial_saves(const std::string& run);

/// How often a job is looked at.
inline constexpr std::chrono::microseconds look_every(1000);

/// One attempt at a run, from its start to its end, watched from outside: by its processes and its folder.
class Attempt {
 public:
  using Clock = std::chrono::steady_clock;

  /// Starts the job, whose run's folder is `run`.
  Attempt(const std::string& run, const ChildJob::Options& job);

  /// Until `come` is true, or the job has ended by itself: then false. Notes on the way when it begins to go on.
  bool wait_until(const std::function<bool()>& come);
  /// Notes whether the job has said from where it goes on.
  void notice_start();
  [[nodiscard]] std::int64_t step() const { return last_step(run_ + "/metrics.jsonl"); }
  /// Whether a checkpoint is on its way, or was when the job ended.
  [[nodiscard]] bool saves() const;
  /// Steps that were done before it, once it says so.
  [[nodiscard]] const std::optional<std::int64_t>& first() const { return first_; }
  /// When the first step of its own was seen.
  [[nodiscard]] const std::optional<Clock::time_point>& went_on() const { return went_on_; }
  [[nodiscard]] ChildJob& job() { return job_; }

 private:
  std::string run_;
  std::uintmax_t starts_bytes_;
  std::vector<std::string> partial_before_;
  ChildJob job_;
  std::optional<std::int64_t> first_;
  std::optional<Clock::time_point> went_on_;
};

}  // namespace lockstep::run
