#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.hpp"

namespace lockstep::run {

/// One number of a rank's training state, and what it is of.
struct StateSum {
  std::uint64_t value = 0;  ///< XXH3-64 of a tensor's bytes, or the bits of a number
  bool replicated = true;   ///< equal on every rank of a sound run; else of what this rank alone holds
  bool operator==(const StateSum&) const = default;
};

/// A sum for each parameter of each of the engine's buffers ("master" and the moments), over what this rank holds of
/// it, and the numbers that steps depend on: counters, loss scale, the rates of the next update. The order is the
/// same on every rank. Waits for the device; needs a megabyte or so and reads each buffer once. Collective where
/// parameters are still on their way (Engine::read_range).
[[nodiscard]] std::vector<StateSum> state_sums(engine::Engine& engine);

/// What entry `index` of state_sums is of: "h.0.attn.weight (exp_avg)", "the loss scale".
[[nodiscard]] std::string name_of_sum(engine::Engine& engine, std::size_t index);

/// For each parameter, the sum of a replicated buffer. ErrorKind::internal of a divided one.
[[nodiscard]] std::vector<std::uint64_t> parameter_sums(engine::Engine& engine, const std::string& buffer);

}  // namespace lockstep::run
