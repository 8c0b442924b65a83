#pragma once

#include <array>
#include <cstdint>

#include "core/host_device.hpp"

namespace lockstep {

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit
/// words as a pure function of a 128-bit counter and a 64-bit key. No state, so the same numbers come out on any
/// rank, thread and device.
struct Philox {
  std::uint32_t word[4];

  LOCKSTEP_HOST_DEVICE static constexpr Philox at(std::uint64_t key, std::uint64_t counter_low,
                                                  std::uint64_t counter_high) {
    std::uint32_t c0 = static_cast<std::uint32_t>(counter_low), c1 = static_cast<std::uint32_t>(counter_low >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(counter_high), c3 = static_cast<std::uint32_t>(counter_high >> 32);
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
      const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    return {{c0, c1, c2, c3}};
  }
};

/// Which sequence a random number belongs to: part of the counter, so two uses never share a number.
enum class RngStream : std::uint32_t { init = 1, data_order = 2, dropout = 3, sampling = 4, synthetic = 5 };

/// In (0, 1): 32 random bits, centred, so that log() of it is finite.
[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr double uniform_from(std::uint32_t word) {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}

/// Four words for element `index` of a stream. `lane` tells apart what shares a stream (a parameter, an epoch).
[[nodiscard]] LOCKSTEP_HOST_DEVICE constexpr Philox random_at(std::uint64_t seed, RngStream stream, std::uint32_t lane,
                                                              std::uint64_t index) {
  return Philox::at(seed, index, (static_cast<std::uint64_t>(stream) << 32) | lane);
}

/// A standard normal number (Box and Muller 1958), in double on the host.
[[nodiscard]] double normal_at(std::uint64_t seed, RngStream stream, std::uint32_t lane, std::uint64_t index);

}  // namespace lockstep
