#include "data/permutation.hpp"

#include <bit>

#include "core/error.hpp"
#include "core/rng.hpp"

namespace lockstep::data {
namespace {

// Four rounds for each half are the classical bound for a strong pseudorandom permutation; the second four make up for
// halves of only a few bits.
constexpr int rounds = 8;

// Above every (round, half) pair that the network uses as a counter.
constexpr std::uint64_t offset_index = std::uint64_t{0xFF} << 56;

std::uint64_t low_mask(int bits) { return (std::uint64_t{1} << bits) - 1; }

}  // namespace

Permutation::Permutation(std::int64_t n, std::uint64_t seed, std::uint32_t epoch) : n_(n), seed_(seed), epoch_(epoch) {
  require(n >= 1, "Permutation: n must be at least 1");
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n) - 1));
  low_bits_ = bits / 2;
  high_bits_ = bits - low_bits_;
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  std::uint64_t low = value & low_mask(low_bits_);
  std::uint64_t high = value >> low_bits_;
  for (int round = 0; round < rounds; ++round) {
    const bool change_high = round % 2 == 0;
    const std::uint64_t index = (static_cast<std::uint64_t>(round) << 56) | (change_high ? low : high);
    const auto random = random_at(seed_, RngStream::data_order, epoch_, index);
    if (change_high) {
      high ^= random.word[0] & low_mask(high_bits_);
    } else {
      low ^= random.word[0] & low_mask(low_bits_);
    }
  }
  return (high << low_bits_) | low;
}

std::int64_t Permutation::operator[](std::int64_t i) const {
  require(i >= 0 && i < n_, "Permutation: the index is outside [0, n)");
  auto value = static_cast<std::uint64_t>(i);
  do {
    value = encrypt(value);
  } while (value >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(value);
}

std::int64_t epoch_offset(std::int64_t bound, std::uint64_t seed, std::uint32_t epoch) {
  require(bound >= 1 && bound < (std::int64_t{1} << 32), "epoch_offset: bound must be in [1, 2^32)");
  const auto random = random_at(seed, RngStream::data_order, epoch, offset_index);
  return static_cast<std::int64_t>((static_cast<std::uint64_t>(random.word[0]) * static_cast<std::uint64_t>(bound)) >>
                                   32);
}

}  // namespace lockstep::data
