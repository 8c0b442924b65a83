#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "sched/schedule.hpp"

namespace lockstep::run {

/// Faults made on purpose, for tests and rehearsals, as the environment variable LOCKSTEP_DRILL asks for them:
///
///   desync@rank=R,step=S     rank R evaluates a schedule whose lr is off by one bit at update S
///   slow_save@seconds=S      every save takes S seconds longer, between its tensors and its manifest
struct Drill {
  std::optional<int> desync_rank;
  std::int64_t desync_step = 0;
  std::chrono::duration<double> save_delay{0};
};

/// ErrorKind::config for a drill that does not exist.
[[nodiscard]] Drill drill_from_environment();

/// `schedule`, but at update `step` the lr of group 0 is the next double.
[[nodiscard]] std::shared_ptr<const sched::Schedule> off_by_one_bit(std::shared_ptr<const sched::Schedule> schedule,
                                                                    std::int64_t step);

}  // namespace lockstep::run
