#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "run/state_sums.hpp"

namespace lockstep::run {

/// Looks for bits that changed by themselves: a fault of memory, of a core, or a program that wrote where it should
/// not. Gradients of such a rank add up like any other's, so nothing else would notice, and the next checkpoint would
/// keep the damage.
///
/// What every rank holds is compared over the ranks (compare). What one rank alone holds, and all of the state when
/// there is one rank, can only be compared with itself: over the time from there to the next update, in which nothing
/// writes it (require_unchanged).
class DriftGuard {
 public:
  DriftGuard(engine::Engine& engine, std::int64_t every) : engine_(engine), every_(every) {}

  /// Whether `done` steps are a multiple of `every`; never if that is 0.
  [[nodiscard]] bool due(std::int64_t done) const { return every_ > 0 && done % every_ == 0; }
  [[nodiscard]] bool on() const { return every_ > 0; }

  /// After `done` steps, none in flight. Collective. ErrorKind::desync, the same on every rank, with the first tensor
  /// or number that differs and the ranks that hold what most others do not.
  void compare(std::int64_t done);
  /// After the next step's passes, before its update; nothing unless compare() has been called since the last one. To
  /// be called by all ranks alike. ErrorKind::desync with the first tensor that changed, on the rank where it did.
  void require_unchanged();
  /// Whether require_unchanged() has something to do: the same on every rank.
  [[nodiscard]] bool armed() const { return compared_at_.has_value(); }

 private:
  engine::Engine& engine_;
  std::int64_t every_;
  std::optional<std::int64_t> compared_at_;
  std::vector<StateSum> sums_;  ///< then
};

/// Ranks whose value is not the one that most have, ascending; nothing where no value is in the majority.
[[nodiscard]] std::optional<std::vector<std::size_t>> minority(const std::vector<std::uint64_t>& values);

}  // namespace lockstep::run
