#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/sum_tree.hpp"

namespace lockstep::job {

/// How the samples of one optimizer step are divided:
/// train = micro x accumulation x world.
struct BatchSizes {
  std::int64_t train = 0;         ///< samples of one optimizer step, over all ranks
  std::int64_t micro = 0;         ///< samples of one rank in one forward and backward
  std::int64_t accumulation = 0;  ///< micro-batches of one optimizer step, on each rank; of leaves the most of a rank
  std::int64_t world = 0;         ///< ranks
  std::int64_t leaves = 0;        ///< by resolve_leaves: micro-batches of all ranks; else 0
  std::string text;               ///< "8 ranks (from MPI) x 4 micro (given) x 2 accumulation (derived) = 64"

  /// Which of a step's micro-batches a rank has: consecutive ones, counted over all ranks.
  [[nodiscard]] sum_tree::Block micro_batches_of(int rank) const {
    return sum_tree::share(leaves > 0 ? leaves : accumulation * world, rank, static_cast<int>(world));
  }
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

/// For `run.determinism: invariant`, where train_batch_size and train_micro_batch_size_per_gpu alone say how a step is
/// divided: into leaves of one micro-batch, of which ranks have as equal numbers as they can. Both must be given, the
/// second must divide the first, and no rank may be left without one; accumulation steps, if given, must say the same.
/// Throws as resolve_batch does.
[[nodiscard]] BatchSizes resolve_leaves(std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                                        std::optional<std::int64_t> accumulation, std::int64_t world,
                                        const std::string& world_source);

}  // namespace lockstep::job
