#pragma once

#include <string>

#include "run/report_data.hpp"

namespace lockstep::run {

/// A run as one HTML page that needs nothing else, no network and no script: numbers, charts of loss, learning rate of
/// each group, gradient norm, throughput and loss scale, each start with ranks and build, and the job. It is light or
/// dark as the browser wishes.
[[nodiscard]] std::string report_html(const RunRecord& run);

/// Reads the run and writes the page to `output`, by default report.html in the run's folder. Returns what to print.
/// Throws as read_run; ErrorKind::environment if the page cannot be written.
[[nodiscard]] std::string write_report(const std::string& folder, const std::string& output = {});

}  // namespace lockstep::run
