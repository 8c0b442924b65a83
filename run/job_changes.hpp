#pragma once

#include <optional>
#include <string>
#include <vector>

#include "job/job.hpp"

namespace lockstep::run {

/// A key of the job file that has another value than when a checkpoint was written.
struct JobChange {
  std::string key;     ///< "optimizer.params.lr"
  std::string before;  ///< "absent" if the key was not there; so with `now`
  std::string now;
};

/// The job that wrote a checkpoint, from the text in its manifest. Nothing if this version cannot read it.
[[nodiscard]] std::optional<job::JobConfig> job_of_then(const std::string& text);

/// In alphabetical order of keys.
[[nodiscard]] std::vector<JobChange> changes_between(const job::JobConfig& then, const job::JobConfig& now);

/// "optimizer.type: AdamW -> SGD", safe to print.
[[nodiscard]] std::string to_text(const JobChange& change);

/// Why the loss scale of a checkpoint means nothing to this job, which then begins with its own: "fp16 -> fp32".
/// Nothing if it goes on.
[[nodiscard]] std::optional<std::string> scaler_change(const job::JobConfig& then, const job::JobConfig& now);

}  // namespace lockstep::run
