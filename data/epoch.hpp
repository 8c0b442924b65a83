#pragma once

#include <cstdint>

#include "core/error.hpp"

namespace lockstep::data {

/// Where a position of the endless training sequence lies: which epoch, and which element of its order.
struct EpochPosition {
  std::uint32_t epoch;
  std::int64_t index;
};

[[nodiscard]] inline EpochPosition epoch_position(std::int64_t position, std::int64_t samples_per_epoch) {
  require(position >= 0, "train_batch: position must not be negative");
  const std::int64_t epoch = position / samples_per_epoch;
  require(epoch < (std::int64_t{1} << 32), "train_batch: more than 2^32 epochs");
  return {static_cast<std::uint32_t>(epoch), position % samples_per_epoch};
}

/// Samples or symbols that belong to the validation part: the last `fraction` of `total`, rounded down.
[[nodiscard]] inline std::int64_t validation_part(std::int64_t total, double fraction) {
  if (!(fraction >= 0.0 && fraction < 1.0)) {
    fail(ErrorKind::config, "data.validation_fraction is {}, but it must be at least 0 and less than 1", fraction);
  }
  return static_cast<std::int64_t>(static_cast<double>(total) * fraction);
}

}  // namespace lockstep::data
