#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "comm/communicator.hpp"
#include "comm/flight_recorder.hpp"

namespace lockstep::comm {

/// Looks after the ranks of this process, from before MPI_Init until after MPI_Finalize, on a thread that never calls
/// MPI or a device.
///
/// A rank that waits for a collective for longer than `warn` is told of once a host, with the ranks that have not come.
/// Waits of a communicator have a deadline of their own, which ends them with the collective and whom they wait for;
/// the watchdog is for what no deadline reaches: MPI_Init, the making of communicators, MPI_Finalize, and a rank that
/// is stuck inside the library. It says who is missing, writes the table to `folder` and ends the process with exit
/// code 6 after `abort`, or, for a collective, a little later than its wait should have ended by itself. The launcher
/// ends the other ranks.
class Watchdog {
 public:
  struct Options {
    Seconds warn{60};    ///< 0: no warnings
    Seconds abort{600};  ///< as the communicator's own timeout
    Seconds start{120};  ///< of MPI_Init, the making of communicators, and MPI_Finalize
    std::string folder;  ///< the run's, for what is dumped; made if it is not there. Empty: standard error only
    std::string host;    ///< for messages
  };
  Watchdog(std::shared_ptr<FlightTable> table, Options options);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  [[nodiscard]] FlightTable& table() { return *table_; }
  /// Where what is dumped goes from now on: known only when the ranks have agreed on a job.
  void use_folder(const std::string& folder);
  /// Of a process with a track of its own: where in its life it is.
  void enter(Phase phase) { table_->own().enter(phase); }
  /// What to add to the message of a rank whose wait passed its deadline: the missing ranks of this host and where the
  /// table was written. The first rank of a host writes it.
  [[nodiscard]] std::string after_hang();

 private:
  void run();
  [[nodiscard]] std::string dump();
  /// With exit code 6; the first of the host says why.
  [[noreturn]] void end_process(const std::string& why);

  std::shared_ptr<FlightTable> table_;
  Options options_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace lockstep::comm
