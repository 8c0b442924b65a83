#include "core/rng.hpp"

#include <cmath>
#include <numbers>

namespace lockstep {

double normal_at(std::uint64_t seed, RngStream stream, std::uint32_t lane, std::uint64_t index) {
  const Philox r = random_at(seed, stream, lane, index);
  return std::sqrt(-2.0 * std::log(uniform_from(r.word[0]))) *
         std::cos(2.0 * std::numbers::pi * uniform_from(r.word[1]));
}

}  // namespace lockstep
