#pragma once

#include <cstdint>

namespace lockstep::data {

/// A random order of 0 .. n-1 with random access: element i costs O(1) time and the whole order no memory, so any rank
/// can ask for any position of any epoch, and resuming a run needs no replay.
///
/// A Feistel network (Luby, Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM J.
/// Computing 1988) whose round function is Philox, on the smallest 2^bits >= n; values that fall outside [0, n) walk on
/// along their cycle until they are inside (Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
/// Fewer than two steps on average, since 2^bits < 2 n. Thread-safe: it has no state that changes.
class Permutation {
 public:
  /// The order of epoch `epoch` under `seed`. Requires n >= 1.
  Permutation(std::int64_t n, std::uint64_t seed, std::uint32_t epoch);

  /// Element `i`, 0 <= i < size().
  [[nodiscard]] std::int64_t operator[](std::int64_t i) const;
  [[nodiscard]] std::int64_t size() const { return n_; }

 private:
  [[nodiscard]] std::uint64_t encrypt(std::uint64_t value) const;

  std::int64_t n_;
  std::uint64_t seed_;
  std::uint32_t epoch_;
  int low_bits_ = 0;
  int high_bits_ = 0;
};

/// A number in [0, bound), one per epoch, independent of the epoch's Permutation. Requires 1 <= bound < 2^32.
[[nodiscard]] std::int64_t epoch_offset(std::int64_t bound, std::uint64_t seed, std::uint32_t epoch);

}  // namespace lockstep::data
