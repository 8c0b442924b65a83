#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "nn/plan.hpp"

namespace lockstep::engine {

/// Memory for units that are there only while they are used: the first gap that is large enough, counted from 0.
class UnitPool {
 public:
  [[nodiscard]] std::int64_t take(int unit, std::int64_t elements);
  void give_back(int unit);
  [[nodiscard]] std::int64_t peak() const { return peak_; }  ///< the furthest end of anything taken

 private:
  struct Taken {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    int unit = 0;
  };
  std::vector<Taken> taken_;  ///< by begin
  std::int64_t peak_ = 0;
};

/// Which units' parameters are in memory when, in ZeRO stage 3: each from just before it is used until its release, and
/// with it the one that is used next, so that it can be gathered meanwhile. No memory is touched here.
///
/// A pass follows the events of its plan. One that departs from them is served too, without looking ahead.
class UnitSchedule {
 public:
  /// `elements` by unit, padded.
  explicit UnitSchedule(std::vector<std::int64_t> elements);

  /// A pass with these events begins; they must live as long as it. Units that nobody used are dropped.
  void begin(const std::vector<nn::UnitEvent>& events);

  struct Start {
    int unit = 0;
    std::int64_t begin = 0;  ///< in the pool
  };
  struct Acquired {
    std::optional<Start> now;   ///< the unit itself, if it was not on its way
    std::optional<Start> next;  ///< another one that is used soon
  };
  [[nodiscard]] Acquired acquire(int unit, nn::Phase phase);
  void release(int unit, nn::Phase phase);

  [[nodiscard]] bool present(int unit) const { return states_[static_cast<std::size_t>(unit)].present; }
  [[nodiscard]] std::int64_t begin_of(int unit) const { return states_[static_cast<std::size_t>(unit)].begin; }
  [[nodiscard]] std::int64_t peak() const { return pool_.peak(); }

  /// The units that a pass brings, in order, as often as it brings them.
  [[nodiscard]] static std::vector<int> brought(const std::vector<std::int64_t>& elements,
                                                const std::vector<nn::UnitEvent>& events);
  /// Elements of the pool that these passes need, one after another.
  [[nodiscard]] static std::int64_t needed(const std::vector<std::int64_t>& elements,
                                           const std::vector<const std::vector<nn::UnitEvent>*>& passes);

 private:
  struct State {
    bool present = false;
    int users = 0;
    std::int64_t begin = 0;
  };
  Start bring(int unit);
  /// The next unit to be acquired after the cursor; -1: none.
  [[nodiscard]] int upcoming() const;
  void advance(const nn::UnitEvent& event);

  std::vector<std::int64_t> elements_;
  std::vector<State> states_;
  UnitPool pool_;
  const std::vector<nn::UnitEvent>* events_ = nullptr;
  std::size_t cursor_ = 0;
};

/// Where the gradient of each unit is made in ZeRO stages 2 and 3, whose sums are reduced to shards: from its first use
/// in backward until the unit that completes after it is complete too, so that it is reduced meanwhile. A tied
/// parameter's unit stays from the head's backward to the embedding's.
struct GradientWindows {
  std::vector<std::int64_t> begin;  ///< by unit, in the windows' memory
  std::int64_t elements = 0;        ///< of that memory
  std::vector<int> visits;          ///< by unit: how often backward acquires it

  /// ErrorKind::internal if backward does not use every unit.
  GradientWindows(const std::vector<std::int64_t>& elements_of, const std::vector<nn::UnitEvent>& events);
};

}  // namespace lockstep::engine
