#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "run/tensorboard.hpp"

namespace lockstep::run {

/// The folder of DeepSpeed's csv_monitor: one file a tag, Train_Samples_lr.csv for Train/Samples/lr, whose first row is
/// `step,lr` and whose others are x and value. Lines end as Python's csv module ends them, with carriage return and
/// line feed; numbers are the shortest that read back to the same bits.
///
/// A process that goes on with a run cuts rows at and behind its first x and writes no second header; DeepSpeed's files
/// keep both. A new run beside older rows appends, header and all, as DeepSpeed does.
class CsvMonitor {
 public:
  /// Makes `folder`. `begin`: x of the run's first event, 0 for a new run; files that are there are cut to what lies
  /// before it. ErrorKind::environment if that fails.
  CsvMonitor(std::string folder, std::int64_t begin);

  /// Returns 0, or the errno of a failed write; the row is then lost.
  [[nodiscard]] int write(std::span<const ScalarEvent> events);
  [[nodiscard]] const std::string& path() const { return folder_; }

 private:
  [[nodiscard]] std::string file_of(const std::string& tag) const;

  std::string folder_;
  std::set<std::string> begun_;  ///< files that have their header from this run
};

}  // namespace lockstep::run
