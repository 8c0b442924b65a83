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

/// The steps between host and device: their inputs on the way there, their results on the way back. A device may be
/// `max_in_flight` steps behind; on the host each has memory of its own here, so nothing is used again before it was
/// read. On the device all of them use the same block, one after the other: a step finds its inputs and leaves its
/// result always at the same addresses.
///
/// Per step: inputs() is filled, send() puts it on its way, exchange() and receive() bring rank 0's record, the step's
/// kernels read on_device() and write result(), issue() ends the step, and collect() gives back its result some time
/// later.
class StepQueue {
 public:
  StepQueue(DeviceApi& device, comm::Communicator& comm, StreamRef stream, int groups, int max_in_flight);
  StepQueue(const StepQueue&) = delete;
  StepQueue& operator=(const StepQueue&) = delete;
  ~StepQueue();

  [[nodiscard]] std::int64_t attempted() const { return attempted_; }  ///< steps issued
  [[nodiscard]] std::int64_t most_in_flight() const { return static_cast<std::int64_t>(slots_); }
  [[nodiscard]] std::int64_t in_flight() const { return attempted_ - collected_; }
  /// No further step can begin before one was collected.
  [[nodiscard]] bool full() const { return in_flight() >= static_cast<std::int64_t>(slots_); }
  /// A result has surely been collected after so many further steps: 0 where work is done at once.
  [[nodiscard]] std::int64_t delay() const;

  // The step to be issued.
  /// In pinned host memory, with room in its record for as many rows as steps can be in flight.
  [[nodiscard]] StepInputs& inputs() { return *reinterpret_cast<StepInputs*>(slot_of(attempted_)); }
  void send();      ///< copies inputs() to the device
  void exchange();  ///< starts the broadcast of rank 0's record over this rank's
  void receive();   ///< makes the stream wait for it
  [[nodiscard]] const StepInputs* on_device() const { return reinterpret_cast<const StepInputs*>(block_->data()); }
  [[nodiscard]] StepResult* result() const {
    return reinterpret_cast<StepResult*>(block_->data() + sizeof(StepInputs) + record_size_);
  }
  void issue();

  /// The oldest step that has not been collected, if it is done; with `block` after waiting for it.
  [[nodiscard]] std::optional<FinishedStep> collect(bool block);
  /// Rank 0's and this rank's values of the step that ended in Halt::desync, by update and group: a record tells those
  /// of several updates, and ranks may differ about a later one.
  [[nodiscard]] const std::vector<StepValues>& their_values() const { return theirs_; }
  [[nodiscard]] const std::vector<StepValues>& our_values() const { return ours_; }

  /// The host restarts at this count; nothing may be in flight.
  void restart(std::int64_t attempted);
  [[nodiscard]] std::size_t bytes() const { return pinned_.size() + block_->bytes(); }
  /// The same, before there is one. `immediate`: the device does its work at once.
  [[nodiscard]] static std::size_t bytes_of(bool immediate, int groups, int max_in_flight);

 private:
  [[nodiscard]] std::byte* slot_of(std::int64_t step) const {
    return pinned_.data() + static_cast<std::size_t>(step) % slots_ * slot_size_;
  }
  /// In a slot, behind what goes out: rank 0's record and the result, as they come back.
  [[nodiscard]] std::byte* returned(std::int64_t step) const {
    return slot_of(step) + sizeof(StepInputs) + record_size_;
  }

  DeviceApi& device_;
  comm::Communicator& comm_;
  StreamRef stream_;
  std::size_t groups_;
  std::size_t slots_;        ///< steps that may be in flight
  std::size_t record_size_;  ///< bytes
  std::size_t result_size_;
  std::size_t slot_size_;
  Pinned<std::byte> pinned_;                ///< [slots] of: inputs, record; record and result that came back
  std::unique_ptr<comm::FlatArena> block_;  ///< inputs, record, result; peers read the record
  std::vector<EventRef> result_ready_;
  comm::Pending broadcast_ = {};
  std::int64_t attempted_ = 0;
  std::int64_t collected_ = 0;
  std::vector<StepValues> theirs_, ours_;
};

}  // namespace lockstep::engine
