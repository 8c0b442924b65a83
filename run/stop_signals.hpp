#pragma once

#include <thread>

namespace lockstep::run {

/// Takes SIGTERM, SIGINT, SIGHUP, SIGUSR2 (wishes to stop) and SIGUSR1 (a wish to save and go on) by a thread of its
/// own that waits for them; no other thread ever runs a handler. A SIGHUP that whoever started the program ignores
/// (nohup) stays ignored.
///
/// That is not a matter of taste: oneDNN's GEMM uses the stack pointer as an ordinary register, and a handler that
/// interrupts it writes its frame into the heap.
///
/// Make one per process before any thread that computes. Without Graceful a wish to stop ends the process at once, as
/// it would by default; a wish to save is forgotten, since there is nothing to save yet.
class StopSignals {
 public:
  StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();

  /// While one lives, the first wish to stop only sets stop_asked(), and so do more within 3 seconds of it: they are
  /// one wish, passed on by a launcher or sent to a whole group. A later one ends the process. A wish to save never
  /// does, however often it comes.
  class Graceful {
   public:
    Graceful();
    Graceful(const Graceful&) = delete;
    Graceful& operator=(const Graceful&) = delete;
    ~Graceful();
    [[nodiscard]] bool stop_asked() const;
    /// Whether a save was asked for since the last call: one call, one wish. A save that has just been written forgets
    /// the wishes that came meanwhile by calling it too.
    [[nodiscard]] bool take_save();
  };

 private:
  std::jthread waiter_;
};

}  // namespace lockstep::run
