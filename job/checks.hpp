#pragma once

#include <memory>

#include "config/schema.hpp"
#include "job/job.hpp"

namespace lockstep::job {

/// What one field alone cannot tell: checks fields against each other, and fills in what follows from others (a
/// preset's sizes, a schedule that ends with the run). `values` has the places for the errors.
/// Returns the job's schedule, which only a job without errors has.
[[nodiscard]] std::shared_ptr<const sched::Schedule> complete(JobConfig& config, const config::Values& values,
                                                              config::Diagnostics& diagnostics);

}  // namespace lockstep::job
