#pragma once

#include <algorithm>
#include <chrono>

#include "comm/communicator.hpp"

namespace lockstep::comm {

/// When a wait gives up. Only time in which this process ran counts: between two looks that lie more than
/// `longest_look` apart the process was stopped (by a signal, a debugger or a suspended machine), and it must not
/// accuse the others of what it missed itself. A machine so busy that every look takes as long cannot be told from
/// that, and must still give up some day: such a gap counts as a moment, and never ends the wait by itself. Any timeout
/// is fine, infinity too.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds longest_look{1000};

  explicit Deadline(Seconds timeout) : Deadline(timeout, Clock::now()) {}
  Deadline(Seconds timeout, Clock::time_point now)
      : last_look_(now),
        end_(now + representable(timeout)),
        moment_(std::min<Clock::duration>(longest_look, representable(timeout) / 32)) {}

  /// To be called several times a second.
  [[nodiscard]] bool passed() { return passed(Clock::now()); }
  [[nodiscard]] bool passed(Clock::time_point now) {
    const Clock::duration gap = now - last_look_;
    last_look_ = now;
    if (gap <= longest_look) return now > end_;
    end_ += gap - moment_;
    return false;
  }

 private:
  /// A century is for ever, and far from what the clock's 64 bits of nanoseconds hold.
  static Clock::duration representable(Seconds timeout) {
    constexpr double century = 3.2e9;
    const double seconds = timeout.count() > 0 ? std::min(timeout.count(), century) : 0.0;
    return std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
  }

  Clock::time_point last_look_;
  Clock::time_point end_;
  Clock::duration moment_;  ///< what a stop counts as
};

}  // namespace lockstep::comm
