#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sched/schedule.hpp"

namespace lockstep::sched {

/// What the first `updates` updates use that no training can want, each a sentence for the user that names the first
/// such update: a learning rate that is infinite, NaN or negative; a beta1 or momentum outside [0, 1).
///
/// Cheap for any number of updates: the first 10,000 are asked one by one, later ones on a grid of 10,000, between two
/// of which a trouble that passes again may be missed.
[[nodiscard]] std::vector<std::string> outlook(const Schedule& schedule, std::int64_t updates);

}  // namespace lockstep::sched
