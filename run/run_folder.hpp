#pragma once

#include <string>

#include "job/job.hpp"

namespace lockstep::run {

/// The run's folder: <output_dir>/<name>.
[[nodiscard]] std::string run_folder(const job::JobConfig& job);

}  // namespace lockstep::run
