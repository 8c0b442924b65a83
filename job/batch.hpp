#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lockstep::job {

/// How the samples of one optimizer step are divided:
/// train = micro x accumulation x world.
struct BatchSizes {
  std::int64_t train = 0;         ///< samples of one optimizer step, over all ranks
  std::int64_t micro = 0;         ///< samples of one rank in one forward and backward
  std::int64_t accumulation = 0;  ///< micro-batches of one optimizer step, on each rank
  std::int64_t world = 0;         ///< ranks
  std::string text;               ///< "8 ranks (from MPI) x 4 micro (given) x 2 accumulation (derived) = 64"
  bool operator==(const BatchSizes&) const = default;
};

/// Derives what was not given of the three batch keys, with DeepSpeed's rule: train_batch_size or
/// train_micro_batch_size_per_gpu must be given, and the product must be exact.
///
/// `world_source` says where the number of ranks comes from, for the messages: "from MPI", "comm.ranks".
/// Throws ErrorKind::config; the message has each number with its origin.
[[nodiscard]] BatchSizes resolve_batch(std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                                       std::optional<std::int64_t> accumulation, std::int64_t world,
                                       const std::string& world_source);

}  // namespace lockstep::job
