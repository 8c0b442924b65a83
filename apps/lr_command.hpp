#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sched/schedule.hpp"

namespace lockstep {

enum class LrFormat { text, csv, json };

/// text, csv or json. Throws ErrorKind::config for another word.
LrFormat parse_lr_format(std::string_view word);

/// The most updates that are shown, so that they fit in memory: 10,000,000 rows over all parameter groups.
std::int64_t most_updates(std::size_t groups);

/// What `lockstep lr` shows.
struct LrRequest {
  std::int64_t updates = 0;  ///< rows; update k is the one after k applied updates
  LrFormat format = LrFormat::text;
  std::vector<std::string> group_names = {};       ///< one a parameter group; empty: "group 0", "group 1", ...
  std::optional<std::filesystem::path> plot = {};  ///< NAME.svg: a picture is written there too
};

/// The schedule as text for standard output, complete with its last newline.
///
///   csv   `update,group,lr,beta1,beta2`, or `update,group,lr,momentum` for an optimizer without betas; one row for
///         each update and group; the shortest decimal numbers that read back as the same double
///   json  the same numbers, one list a group, with the warnings and notes of the schedule; null for what is not finite
///   text  a curve for the terminal, the first, last, least and greatest values, and what may surprise
///
/// Needs no MPI. Throws ErrorKind::config if `updates` is not in [1, most_updates] or the picture's name is not that of
/// an SVG, ErrorKind::environment if the picture cannot be written.
std::string lr_report(const sched::Schedule& schedule, const LrRequest& request);

}  // namespace lockstep
