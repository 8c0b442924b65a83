#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.hpp"
#include "kernels/decide/step.hpp"

namespace lockstep::engine {

/// A step whose result has come back to the host, with the values that its update kernels read, per group.
struct FinishedStep : StepResult {
  std::vector<StepValues> applied_values;
};

/// The steps between host and device: their records on the way there, their results on the way back. A device may be
/// `max_in_flight` steps behind; each has memory of its own here, so nothing is used again before it was read.
///
/// Per step: record() is filled, send() puts it on its way to all ranks, the step's kernels read received() and own()
/// and write result(), issue() ends the step, and collect() gives back its result some time later.
class StepQueue {
 public:
  StepQueue(DeviceApi& device, comm::Communicator& comm, StreamRef stream, int groups, int max_in_flight);
  StepQueue(const StepQueue&) = delete;
  StepQueue& operator=(const StepQueue&) = delete;
  ~StepQueue();

  [[nodiscard]] std::int64_t attempted() const { return attempted_; }  ///< steps issued
  [[nodiscard]] std::int64_t in_flight() const { return attempted_ - collected_; }
  /// No further step can begin before one was collected.
  [[nodiscard]] bool full() const { return in_flight() >= static_cast<std::int64_t>(slots_); }
  /// A result has surely been collected after so many further steps: 0 where work is done at once.
  [[nodiscard]] std::int64_t delay() const;

  // The step to be issued.
  /// In pinned host memory, with room for as many rows as steps can be in flight.
  [[nodiscard]] StepRecord& record();
  /// Copies this rank's record to the device and starts the broadcast of rank 0's.
  void send();
  /// Makes the stream wait for rank 0's record.
  void receive();
  [[nodiscard]] const StepRecord* received() const { return record_on_device(*received_, attempted_); }
  [[nodiscard]] const StepRecord* own() const { return record_on_device(own_, attempted_); }
  [[nodiscard]] StepResult* result() const { return reinterpret_cast<StepResult*>(result_.data()); }
  void issue();

  /// The oldest step that has not been collected, if it is done; with `block` after waiting for it.
  [[nodiscard]] std::optional<FinishedStep> collect(bool block);
  /// Rank 0's and this rank's values of the step that ended in Halt::desync, by update and group: a record tells those
  /// of several updates, and ranks may differ about a later one.
  [[nodiscard]] const std::vector<StepValues>& their_values() const { return theirs_; }
  [[nodiscard]] const std::vector<StepValues>& our_values() const { return ours_; }

  /// The host restarts at this count; nothing may be in flight.
  void restart(std::int64_t attempted);
  [[nodiscard]] std::size_t bytes() const;

 private:
  template <class Memory>
  [[nodiscard]] const StepRecord* record_on_device(const Memory& records, std::int64_t step) const {
    return reinterpret_cast<const StepRecord*>(records.data() + slot_of(step) * record_size_);
  }
  [[nodiscard]] std::size_t slot_of(std::int64_t step) const { return static_cast<std::size_t>(step) % slots_; }
  [[nodiscard]] std::vector<StepValues> values_of(const StepRecord* on_device, std::size_t updates) const;

  DeviceApi& device_;
  comm::Communicator& comm_;
  StreamRef stream_;
  std::size_t groups_;
  std::size_t slots_;        ///< steps that may be in flight
  std::size_t record_size_;  ///< bytes
  std::size_t result_size_;
  Pinned<std::byte> pinned_records_;
  Pinned<std::byte> pinned_results_;
  std::unique_ptr<comm::FlatArena> received_;  ///< read by peers while a broadcast is under way
  Arena own_, result_;
  std::vector<EventRef> result_ready_;
  comm::Pending broadcast_ = {};
  std::int64_t attempted_ = 0;
  std::int64_t collected_ = 0;
  std::vector<StepValues> theirs_, ours_;
};

}  // namespace lockstep::engine
