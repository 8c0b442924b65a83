#pragma once

#include "core/rng.hpp"
#include "kernels/dropout/dropout.hpp"

namespace lockstep {

// Which random word decides about an element. A sample's elements are taken in blocks of 64, and a block has 16
// counters of four words: word w of counter j decides about element 16 w + j of the block. So 16 lanes compute the
// words of 16 neighbours.
inline constexpr std::int64_t dropout_block = 64;
inline constexpr std::int64_t dropout_lanes = 16;

/// Blocks of a sample.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static constexpr std::int64_t dropout_blocks(std::int64_t cols) {
  return (cols + dropout_block - 1) / dropout_block;
}
/// Counter j of a block of the sample at position `sample` in the training sequence.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static constexpr std::uint64_t dropout_counter(std::uint64_t sample,
                                                                                  std::int64_t cols, std::int64_t block,
                                                                                  std::int64_t j) {
  return (sample * static_cast<std::uint64_t>(dropout_blocks(cols)) + static_cast<std::uint64_t>(block)) *
             static_cast<std::uint64_t>(dropout_lanes) +
         static_cast<std::uint64_t>(j);
}
/// The upper half of the counter: operation, stream and step. The stream's number has 3 bits, so no other use of random
/// numbers has the same.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static constexpr std::uint64_t dropout_lane(std::uint32_t operation,
                                                                               std::int64_t step) {
  const std::uint64_t stream =
      static_cast<std::uint64_t>(RngStream::dropout) | (static_cast<std::uint64_t>(step) << 3 & 0xFFFFFFFFU);
  return stream << 32 | operation;
}

[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline std::uint64_t first_sample_of(const DropoutArgs& args) {
  return args.first_sample != nullptr ? static_cast<std::uint64_t>(*args.first_sample) : 0;
}
[[nodiscard]] LOCKSTEP_HOST_DEVICE static inline std::uint64_t upper_counter_of(const DropoutArgs& args) {
  return dropout_lane(args.operation, args.state != nullptr ? args.state->attempted : 0);
}

/// What is left of an element.
[[nodiscard]] LOCKSTEP_HOST_DEVICE static constexpr float dropped(float value, std::uint32_t word,
                                                                  std::uint32_t threshold, float scale) {
  return word >= threshold ? value * scale : 0.0F;
}

}  // namespace lockstep
