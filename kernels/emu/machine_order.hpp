#pragma once

// The emulator's thread order, for host code: no CUDA words come with it.

#include <cstdint>

namespace lockstep::simt {

inline constexpr std::uint64_t forward_order = 0;
inline constexpr std::uint64_t reverse_order = ~std::uint64_t{0};

/// Until it goes out of scope, kernels that this host thread emulates run their threads forward, in reverse, or (any
/// other value: a seed) in a random order.
class ScopedOrder {
 public:
  explicit ScopedOrder(std::uint64_t order);
  ScopedOrder(const ScopedOrder&) = delete;
  ScopedOrder& operator=(const ScopedOrder&) = delete;
  ~ScopedOrder();

 private:
  std::uint64_t before_;
};

}  // namespace lockstep::simt
