#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "job/job.hpp"
#include "run/lr_find.hpp"

namespace lockstep {

/// What `lockstep lr-find` shows of a sweep.
struct LrFindRequest {
  std::string job;                                 ///< its path
  std::vector<std::string> overrides = {};         ///< as given to --set
  std::optional<std::filesystem::path> plot = {};  ///< NAME.svg: a picture is written there too
};

/// The sweep as text for standard output: the curve of the losses over the rates, what each rule names, the suggestion
/// with the band of all rules, and a patch for the job file, which loads: the optimizer with the rate, and a schedule
/// with a warm-up to it; as comments one cycle up to the end of the band.
///
/// ErrorKind::config if the loss fell at no rate (another range is needed), or if the picture's name is not that of an
/// SVG; ErrorKind::environment if the picture cannot be written.
std::string lr_find_report(const run::LrFound& found, const run::LrFindOptions& options, const LrFindRequest& request);

/// The patch: blocks `optimizer` and `scheduler` of the job with this rate, as YAML.
std::string lr_patch(const LrFindRequest& request, double lr);

/// Two significant digits: more would say more than a sweep knows.
double rounded_rate(double lr);

}  // namespace lockstep
